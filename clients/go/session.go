package echomesh

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	commonv1 "echomesh/gen/echomesh/common/v1"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Second
)

// session is a transport and the tokens of one identity; without tokens, what anyone may call.
type session struct {
	transport *transport
	tokens    *tokenSource
}

// MaxAttempts tells how often a method ("/package.Service/Method") may be tried, by its proto; 1 if a
// repeat might do the thing twice.
func MaxAttempts(fullMethod string) int {
	name := strings.ReplaceAll(strings.TrimPrefix(fullMethod, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return 1
	}
	retry, _ := proto.GetExtension(found.Options(), commonv1.E_Retry).(*commonv1.Retry)
	if !retry.GetIdempotent() {
		return 1
	}
	return max(1, int(retry.GetMaxAttempts()))
}

// unary calls a method, trying again while it is idempotent, the failure passing and time left.
func (s *session) unary(ctx context.Context, method string, request, answer proto.Message) error {
	again := newAttempts(s, method)
	for {
		err := s.attempt(ctx, again, method, request, answer)
		if err == nil {
			return nil
		}
		if err := again.after(ctx, err); err != nil {
			return err
		}
	}
}

func (s *session) attempt(
	ctx context.Context, again *attempts, method string, request, answer proto.Message,
) error {
	ctx, err := again.authorized(ctx)
	if err != nil {
		return err
	}
	at, err := s.transport.peer(ctx, serviceOf(method))
	if err != nil {
		return err
	}
	return once(ctx, at, method, request, answer)
}

// once makes one attempt at a method.
func once(ctx context.Context, at *peer, method string, request, answer proto.Message) error {
	conn := at.current()
	ctx, watch := at.watching(traced(ctx), conn)
	return watch.stop(ctx, conn.Invoke(ctx, method, request, answer))
}

// serviceOf takes the service out of "/package.Service/Method".
func serviceOf(method string) string {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service
}

// attempts decides after each failure whether to try again, and waits before it.
type attempts struct {
	session *session
	left    int
	once    bool
	made    int
	renewed bool
	token   string
}

func newAttempts(s *session, method string) *attempts {
	left := MaxAttempts(method)
	return &attempts{session: s, left: left, once: left == 1}
}

// authorized adds who calls to a context.
func (a *attempts) authorized(ctx context.Context) (context.Context, error) {
	if a.session.tokens == nil {
		return ctx, nil
	}
	token, err := a.session.tokens.accessToken(ctx)
	if err != nil {
		return nil, err
	}
	a.token = token
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

// after returns nil to try again, and the error of the call to give up.
func (a *attempts) after(ctx context.Context, err error) error {
	failed, final := failure(ctx, err)
	if failed.TraceID == "" {
		failed.TraceID = traceOf(ctx)
	}
	if final {
		return failed
	}
	if failed.Reason == "TOKEN_EXPIRED" && a.session.tokens != nil && !a.renewed {
		a.renewed = true
		a.session.tokens.drop(a.token)
		return nil
	}
	// An error without a reason is the connection's: a service may be starting again, which may take
	// as long as the caller is willing to wait.
	if failed.Reason != "" || failed.Code != codes.Unavailable {
		a.left--
	}
	wait, worth := a.wait(failed)
	if a.once || a.left < 1 || !worth || !fits(ctx, wait) {
		return failed
	}
	if failed.Code == codes.Unavailable {
		a.session.transport.forgetEndpoints()
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		late := ended(ctx)
		late.TraceID = failed.TraceID
		return late
	}
}

func (a *attempts) wait(failed *Error) (time.Duration, bool) {
	if failed.RetryAfter != nil {
		return *failed.RetryAfter, true
	}
	if failed.Code != codes.Unavailable {
		return 0, false
	}
	wait := min(maxBackoff, firstBackoff<<min(a.made, 10))
	a.made++
	return time.Duration(float64(wait) * (0.8 + 0.4*mathrand.Float64())), true
}

// fits tells whether so long a wait ends before the context does.
func fits(ctx context.Context, wait time.Duration) bool {
	ends, ok := ctx.Deadline()
	return !ok || wait < time.Until(ends)
}

// failure is the error that a failed call is told as, and whether there is nothing to decide any more.
func failure(ctx context.Context, err error) (*Error, bool) {
	var known *Error
	if errors.As(err, &known) { // of a call that was tried again by itself
		return known, true
	}
	if errors.Is(err, errPeerLost) {
		return &Error{Code: codes.Unavailable, Message: err.Error()}, false
	}
	failed := fromRPC(err)
	if failed.Code == codes.Canceled && ctx.Err() != nil {
		return ended(ctx), true
	}
	if isConnections(failed) {
		return &Error{Code: codes.Unavailable, Message: "the replica ended the call"}, false
	}
	return failed, false
}

// isConnections tells whether an error is not the mesh's, which gives a reason, but the connection's by
// another name: CANCELLED (not by the caller) is what reaches a server as it stops, and a server or proxy
// that dies may reset its streams.
func isConnections(failed *Error) bool {
	if failed.Reason != "" {
		return false
	}
	reset := failed.Code == codes.Internal && strings.Contains(failed.Message, "RST_STREAM")
	return failed.Code == codes.Canceled || reset
}

// ended is the error of a call whose context is over.
func ended(ctx context.Context) *Error {
	return &Error{Code: status.FromContextError(ctx.Err()).Code(), Message: ctx.Err().Error()}
}

type traceKey struct{}

const traceparent = "traceparent"

// begin gives a call its time, unless it has one, and its trace: the caller's if the outgoing metadata of
// the context names one, else a new one.
func begin(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	trace := randomHex(16)
	sent, _ := metadata.FromOutgoingContext(ctx)
	if given := sent.Get(traceparent); len(given) > 0 {
		if parts := strings.Split(given[0], "-"); len(parts) == 4 {
			trace = parts[1]
		}
	}
	ctx = context.WithValue(ctx, traceKey{}, trace)
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// traced adds the trace context of one attempt.
func traced(ctx context.Context) context.Context {
	sent, _ := metadata.FromOutgoingContext(ctx)
	sent = sent.Copy()
	sent.Set(traceparent, "00-"+traceOf(ctx)+"-"+randomHex(8)+"-01")
	return metadata.NewOutgoingContext(ctx, sent)
}

// traceOf tells what finds a call in the logs of the mesh.
func traceOf(ctx context.Context) string {
	trace, _ := ctx.Value(traceKey{}).(string)
	return trace
}

func randomHex(bytes int) string {
	random := make([]byte, bytes)
	_, _ = rand.Read(random) // it never fails
	return hex.EncodeToString(random)
}

// newID makes a random UUID, as request ids are.
func newID() string {
	random := make([]byte, 16)
	_, _ = rand.Read(random)
	random[6], random[8] = random[6]&0x0f|0x40, random[8]&0x3f|0x80
	text := hex.EncodeToString(random)
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}
