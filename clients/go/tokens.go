package echomesh

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	authv1 "echomesh/gen/echomesh/auth/v1"
)

// A token is renewed this long before it expires, so that a call never starts with a stale one.
const renewBefore = 30 * time.Second

// tokenSource keeps one identity's access token fresh.
//
// signIn gets a first pair of tokens; after that the refresh token is used, and signIn again only if the
// refresh is refused.
type tokenSource struct {
	transport *transport
	signIn    func(context.Context) (*authv1.Tokens, error)
	// Held, as a value in it, by the call that renews; it guards tokens and refreshID.
	renewing chan struct{}
	tokens   *authv1.Tokens
	// Kept until there are new tokens: a refresh token sent again under another id is reuse.
	refreshID string

	mu      sync.Mutex
	dropped string
}

func newTokenSource(t *transport, signIn func(context.Context) (*authv1.Tokens, error)) *tokenSource {
	return &tokenSource{transport: t, signIn: signIn, renewing: make(chan struct{}, 1)}
}

// accessToken gives a token that is valid for a while yet.
func (s *tokenSource) accessToken(ctx context.Context) (string, error) {
	unlock, err := hold(ctx, s.renewing)
	if err != nil {
		return "", err
	}
	defer unlock()
	if s.tokens == nil || s.expiring() {
		tokens, err := s.renew(ctx)
		if err != nil {
			return "", err
		}
		s.tokens, s.refreshID = tokens, ""
	}
	return s.tokens.GetAccessToken(), nil
}

// drop says not to use this access token again: the mesh refused it. A newer one stays.
func (s *tokenSource) drop(accessToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = accessToken
}

func (s *tokenSource) expiring() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expires := s.tokens.GetAccessExpiresAt().AsTime()
	return s.tokens.GetAccessToken() == s.dropped || time.Until(expires) < renewBefore
}

func (s *tokenSource) renew(ctx context.Context) (*authv1.Tokens, error) {
	if s.tokens != nil {
		tokens, err := s.refresh(ctx)
		var refused *Error
		if !errors.As(err, &refused) || refused.Code != codes.Unauthenticated {
			return tokens, err
		}
	}
	return s.signIn(ctx)
}

func (s *tokenSource) refresh(ctx context.Context) (*authv1.Tokens, error) {
	if s.refreshID == "" {
		s.refreshID = newID()
	}
	request := &authv1.RefreshRequest{RefreshToken: s.tokens.GetRefreshToken(), RequestId: s.refreshID}
	answer := &authv1.RefreshResponse{}
	anyone := &session{transport: s.transport}
	err := anyone.unary(ctx, authv1.AuthService_Refresh_FullMethodName, request, answer)
	return answer.GetTokens(), err
}
