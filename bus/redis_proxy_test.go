package bus_test

import (
	"net"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// proxy is the network between a client and Redis.
type proxy struct {
	listener net.Listener
	backend  string

	mu      sync.Mutex
	refused bool
	holed   bool
	pairs   map[*pair]bool
}

// A pair is one connection through the proxy.
type pair struct {
	client, server net.Conn
	mu             sync.Mutex // held while nothing passes
	stuck          bool
}

func newProxy(t *testing.T, backend string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, backend: backend, pairs: map[*pair]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.refuse(true)
		p.hole(false)
		p.cut()
		wg.Wait()
	})
	return p
}

// client returns a client that goes through the proxy.
func (p *proxy) client(t *testing.T) *redis.Client { return p.clientOf(t, 0) }

// clientOf returns one with room for n connections. 0 is go-redis' default.
func (p *proxy) clientOf(t *testing.T, n int) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: p.listener.Addr().String(), ContextTimeoutEnabled: true, DialerRetries: 1, PoolSize: n,
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.backend)
	if err != nil {
		return
	}
	defer server.Close()
	c := &pair{client: client, server: server}
	p.mu.Lock()
	if p.refused {
		p.mu.Unlock()
		return
	}
	if p.holed {
		c.stick()
	}
	p.pairs[c] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, c)
	}()
	var wg sync.WaitGroup
	wg.Go(func() { c.pass(client, server) })
	wg.Go(func() { c.pass(server, client) })
	wg.Wait()
}

func (c *pair) pass(from, to net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock() // waits while it is stuck
		_, werr := to.Write(buf[:n])
		c.mu.Unlock()
		if err != nil || werr != nil {
			return
		}
	}
}

// stick lets nothing pass until release.
func (c *pair) stick() {
	if !c.stuck {
		c.stuck = true
		c.mu.Lock()
	}
}

func (c *pair) release() {
	if c.stuck {
		c.stuck = false
		c.mu.Unlock()
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.client.Close()
		c.server.Close()
		c.release()
	}
}

// refuse breaks new connections at once.
func (p *proxy) refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = on
}

// hole lets nothing pass, in old and new connections.
func (p *proxy) hole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holed = on
	for c := range p.pairs {
		if on {
			c.stick()
		} else {
			c.release()
		}
	}
}

// orphan lets nothing pass in those connections that there are.
func (p *proxy) orphan() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.stick()
	}
}
