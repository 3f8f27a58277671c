package echomesh

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	authv1 "echomesh/gen/echomesh/auth/v1"
	routingv1 "echomesh/gen/echomesh/routing/v1"
)

const (
	defaultTimeout     = 10 * time.Second
	defaultChatTimeout = 60 * time.Second
)

// Options say how a mesh is reached. Only the key is required.
type Options struct {
	APIKey string
	// Timeout of calls whose context has no deadline, for all attempts together. Unset: 10 s; a chat
	// has 60 s.
	Timeout time.Duration
	// RootCertificates is PEM of the authorities that sign the servers' certificates. Unset: the system's.
	RootCertificates []byte
	// TLS, if nil, is used unless the address is loopback.
	TLS *bool
	// ServerName in the servers' certificates, where it is not that of the address.
	ServerName string
	// Forwarded: the address is a forwarded port, and so are the other services' ports, at the same host.
	Forwarded bool
	// Endpoints says where auth, memory and routing are reached from here, by these names, in place of
	// what the mesh says.
	Endpoints map[string]string
	// DialOptions are added to every connection's, such as a tracer's stats handler.
	DialOptions []grpc.DialOption
}

// Client is a connection to a mesh, and the user whose key it was opened with.
type Client struct {
	User
}

// User is one user's messages, memories and conversations. It may be used by several goroutines.
//
// A call whose context has no deadline gets the client's timeout. Failures are of type *Error.
type User struct {
	session *session
	timeout time.Duration
}

// Connect opens a client; nothing is sent before the first call.
//
// The address is the host:port of any routing replica, or several separated by commas, of which one that
// fails is passed over; the other services are found from it.
func Connect(address string, options Options) (*Client, error) {
	shared, err := newTransport(address, options)
	if err != nil {
		return nil, err
	}
	anyone := &session{transport: shared}
	tokens := newTokenSource(shared, func(ctx context.Context) (*authv1.Tokens, error) {
		request := &authv1.ExchangeApiKeyRequest{ApiKey: options.APIKey}
		answer := &authv1.ExchangeApiKeyResponse{}
		err := anyone.unary(ctx, authv1.AuthService_ExchangeApiKey_FullMethodName, request, answer)
		return answer.GetTokens(), err
	})
	timeout := options.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Client{User{&session{shared, tokens}, timeout}}, nil
}

// AsUser gives the same mesh as one of the application's end users, who is made on first use. The key must
// have the role app.
func (c *Client) AsUser(externalUserID string) *User {
	shared := c.session.transport
	tokens := newTokenSource(shared, func(ctx context.Context) (*authv1.Tokens, error) {
		request := &authv1.ExchangeTokenRequest{ExternalUserId: externalUserID}
		answer := &authv1.ExchangeTokenResponse{}
		err := c.session.unary(ctx, authv1.AuthService_ExchangeToken_FullMethodName, request, answer)
		return answer.GetTokens(), err
	})
	return &User{&session{shared, tokens}, c.timeout}
}

// Close closes the connections; calls under way end.
func (c *Client) Close() error {
	return c.session.transport.peers.close()
}

// Endpoints tells where each client-facing gRPC service listens.
func (c *Client) Endpoints(ctx context.Context) (map[string]string, error) {
	ctx, cancel := begin(ctx, c.timeout)
	defer cancel()
	answer := &routingv1.GetEndpointsResponse{}
	anyone := &session{transport: c.session.transport}
	method := routingv1.MeshService_GetEndpoints_FullMethodName
	if err := anyone.unary(ctx, method, &routingv1.GetEndpointsRequest{}, answer); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, each := range answer.GetEndpoints() {
		found[each.GetService()] = each.GetAddress()
	}
	return found, nil
}

func (u *User) call(ctx context.Context, method string, request, answer proto.Message) error {
	ctx, cancel := begin(ctx, u.timeout)
	defer cancel()
	return u.session.unary(ctx, method, request, answer)
}
