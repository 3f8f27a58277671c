package echomesh

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// The replicas of a service: which one to call next, and noticing one that froze under a call.
//
// A frozen process keeps its connection, so a call to it would just last until its deadline. Health
// answers at once even on a busy replica; a call that stays silent is therefore given up, and tried
// elsewhere, when its replica does not answer a health check either.

const (
	// A call that has been silent for so long has its replica's health looked at.
	quiet = 2 * time.Second
	// A replica that gives no answer about its health within this time is frozen or cut off.
	probeTimeout = 2 * time.Second
	// How often to look whether a replica that failed has come back.
	probeEvery = time.Second
	// Calls on a connection that is left may go on for as long as any call may take.
	longestCall = 10 * time.Minute
)

// errPeerLost: the replica that was called answers nothing any more.
var errPeerLost = errors.New("the replica stopped answering")

type dial func(address string) (*grpc.ClientConn, error)

// peer is one replica, or a balancer in front of several: its address and its connection.
type peer struct {
	address string
	connect dial

	mu   sync.Mutex
	conn *grpc.ClientConn
	// Failed, and not yet seen healthy since: it is called only if there is no other.
	suspect  bool
	probing  bool
	probedAt time.Time
	left     map[*grpc.ClientConn]*time.Timer
}

func newPeer(address string, connect dial) (*peer, error) {
	conn, err := connect(address)
	if err != nil {
		return nil, err
	}
	left := map[*grpc.ClientConn]*time.Timer{}
	return &peer{address: address, connect: connect, conn: conn, left: left}, nil
}

func (p *peer) current() *grpc.ClientConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

func (p *peer) isSuspect() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.suspect
}

func (p *peer) distrust() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect = true
}

// leave uses a new connection in place of this one, unless another call has seen to it first: behind a
// balancer it may lead to another replica.
func (p *peer) leave(old *grpc.ClientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old != p.conn {
		return
	}
	if conn, err := p.connect(p.address); err == nil {
		p.conn = conn
		p.left[old] = time.AfterFunc(longestCall, func() { p.drop(old) })
	}
}

func (p *peer) drop(old *grpc.ClientConn) {
	p.mu.Lock()
	delete(p.left, old)
	p.mu.Unlock()
	_ = old.Close() // it fails only if it is closed already
}

// close closes the connection, and those that were left.
func (p *peer) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn, timer := range p.left {
		timer.Stop()
		_ = conn.Close()
	}
	return p.conn.Close()
}

// frozen tells whether a health check gets no answer at all; an error is one.
func frozen(conn *grpc.ClientConn) bool {
	_, err := health(conn)
	return status.Code(err) == codes.DeadlineExceeded
}

func health(conn *grpc.ClientConn) (*grpc_health_v1.HealthCheckResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	return grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
}

// lookAgain asks a suspect replica for its health behind the caller's back, now and then.
func (p *peer) lookAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probing || time.Since(p.probedAt) < probeEvery {
		return
	}
	p.probing, p.probedAt = true, time.Now()
	go p.recover(p.conn)
}

// recover trusts the replica again unless it is still away, frozen or about to end.
func (p *peer) recover(conn *grpc.ClientConn) {
	answer, err := health(conn)
	// Some other error is an answer too: what is in between may know no health checks.
	code := status.Code(err)
	away := code == codes.Unavailable || code == codes.DeadlineExceeded
	ending := answer.GetStatus() == grpc_health_v1.HealthCheckResponse_NOT_SERVING
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect, p.probing = away || ending, false
}

// watch looks after one call: ends its context with errPeerLost when its replica is frozen.
type watch struct {
	ctx    context.Context
	peer   *peer
	conn   *grpc.ClientConn
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	heardAt time.Time
	timer   *time.Timer
}

// watching begins the watch of a call on conn with the context that it returns.
func (p *peer) watching(ctx context.Context, conn *grpc.ClientConn) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{ctx: ctx, peer: p, conn: conn, cancel: cancel, heardAt: time.Now()}
	w.again(quiet)
	return ctx, w
}

// heard notes that the replica sent something.
func (w *watch) heard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heardAt = time.Now()
}

// stop ends the watch of a call that is over, and tells its error: errPeerLost if it was frozen under it.
func (w *watch) stop(ctx context.Context, err error) error {
	lost := err != nil && errors.Is(context.Cause(ctx), errPeerLost)
	w.cancel(nil)
	w.rest()
	// A deadline says nothing about the replica: the call may just have been too long.
	if lost || status.Code(err) == codes.Unavailable {
		w.peer.distrust()
	}
	if lost {
		w.peer.leave(w.conn)
		return errPeerLost
	}
	return err
}

func (w *watch) look() {
	if w.ctx.Err() != nil {
		return
	}
	if silent := w.silence(); silent < quiet {
		w.again(quiet - silent)
		return
	}
	asked := time.Now()
	gone := frozen(w.conn)
	w.mu.Lock()
	gone = gone && w.heardAt.Before(asked)
	w.mu.Unlock()
	if gone {
		w.cancel(errPeerLost)
		return
	}
	w.heard()
	w.again(quiet)
}

func (w *watch) silence() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.heardAt)
}

// again has the call looked at later, unless it is over: also by a panic of its caller's, which does not
// come to stop.
func (w *watch) again(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() == nil {
		w.timer = time.AfterFunc(after, w.look)
	}
}

func (w *watch) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil { // else its context was over before it began
		w.timer.Stop()
	}
}

// peers are the replicas that are known, by address; calls go round those that work.
type peers struct {
	connect dial

	mu    sync.Mutex
	known map[string]*peer
	// A count for each list: with one for all, who calls two services by turns would call only every
	// other replica of each.
	turns  map[string]int
	closed bool
}

func newPeers(connect dial) *peers {
	return &peers{connect: connect, known: map[string]*peer{}, turns: map[string]int{}}
}

// pick gives the next of the replicas at addresses (host:port, separated by commas).
func (p *peers) pick(addresses string) (*peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &Error{Code: codes.Canceled, Message: "the client is closed"}
	}
	var all, working []*peer
	for _, address := range strings.Split(addresses, ",") {
		each, err := p.at(strings.TrimSpace(address))
		if err != nil {
			return nil, err
		}
		all = append(all, each)
		if each.isSuspect() {
			each.lookAgain()
		} else {
			working = append(working, each)
		}
	}
	among := working
	if len(among) == 0 {
		among = all
	}
	turn := p.turns[addresses]
	p.turns[addresses] = turn + 1
	return among[turn%len(among)], nil
}

func (p *peers) at(address string) (*peer, error) {
	if known, ok := p.known[address]; ok {
		return known, nil
	}
	made, err := newPeer(address, p.connect)
	if err != nil {
		return nil, err
	}
	p.known[address] = made
	return made, nil
}

// close closes every connection, for good.
func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var all []error
	for _, each := range p.known {
		all = append(all, each.close())
	}
	p.known = map[string]*peer{}
	return errors.Join(all...)
}
