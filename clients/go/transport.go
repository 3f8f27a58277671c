package echomesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	routingv1 "echomesh/gen/echomesh/routing/v1"
)

var channelOptions = []grpc.DialOption{
	// Servers allow a ping every 10 s on public listeners.
	grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
	grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
		},
		MinConnectTimeout: 5 * time.Second,
	}),
	// Retries are session.go's: gRPC would not keep them within one deadline.
	grpc.WithDisableRetry(),
	grpc.WithDisableServiceConfig(),
}

// meshService is found at the address that the client was given.
const meshService = "echomesh.routing.v1.MeshService"

// transport holds connections to a mesh, found from one address; a client and its users share it.
type transport struct {
	address string
	options Options
	tls     *tls.Config
	peers   *peers
	// Held, as a value in it, by the call that looks the addresses up.
	finding chan struct{}

	mu        sync.Mutex
	endpoints map[string]string
}

func newTransport(address string, options Options) (*transport, error) {
	t := &transport{address: address, options: options, finding: make(chan struct{}, 1)}
	t.tls = &tls.Config{ServerName: options.ServerName, MinVersion: tls.VersionTLS12}
	if options.RootCertificates != nil {
		t.tls.RootCAs = x509.NewCertPool()
		if !t.tls.RootCAs.AppendCertsFromPEM(options.RootCertificates) {
			return nil, errors.New("echomesh: RootCertificates holds no certificate in PEM")
		}
	}
	t.peers = newPeers(t.connect)
	return t, nil
}

func (t *transport) connect(address string) (*grpc.ClientConn, error) {
	plain := isLoopback(address)
	if t.options.TLS != nil {
		plain = !*t.options.TLS
	}
	secured := insecure.NewCredentials()
	if !plain {
		secured = credentials.NewTLS(t.tls)
	}
	options := append([]grpc.DialOption{grpc.WithTransportCredentials(secured)}, channelOptions...)
	return grpc.NewClient(address, append(options, t.options.DialOptions...)...)
}

// peer gives a replica of a service; it looks addresses up on first use.
func (t *transport) peer(ctx context.Context, service string) (*peer, error) {
	if service == meshService {
		return t.peers.pick(t.address)
	}
	endpoints, err := t.find(ctx)
	if err != nil {
		return nil, err
	}
	if address, ok := endpoints[service]; ok {
		return t.peers.pick(address)
	}
	return t.peers.pick(t.address)
}

// forgetEndpoints has the addresses looked up again: a service may have moved.
func (t *transport) forgetEndpoints() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endpoints = nil
}

func (t *transport) known() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endpoints
}

func (t *transport) find(ctx context.Context) (map[string]string, error) {
	unlock, err := hold(ctx, t.finding)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if known := t.known(); known != nil {
		return known, nil
	}
	at, err := t.peers.pick(t.address)
	if err != nil {
		return nil, err
	}
	answer := &routingv1.GetEndpointsResponse{}
	method := routingv1.MeshService_GetEndpoints_FullMethodName
	if err := once(ctx, at, method, &routingv1.GetEndpointsRequest{}, answer); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, each := range answer.GetEndpoints() {
		found[each.GetService()] = t.reached(each.GetService(), each.GetAddress())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endpoints = found
	return found, nil
}

// reached says where a service that the mesh says is at address is reached from here.
func (t *transport) reached(service, address string) string {
	if given := t.options.Endpoints[strings.Split(service, ".")[1]]; given != "" {
		return given
	}
	if !t.options.Forwarded {
		return address
	}
	return t.address[:strings.LastIndex(t.address, ":")] + address[strings.LastIndex(address, ":"):]
}

// isLoopback is true if the address names this machine, where TLS adds nothing.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// hold waits for a lock for as long as the context allows; what it returns lets go of it.
func hold(ctx context.Context, lock chan struct{}) (func(), error) {
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}
