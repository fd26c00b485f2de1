// Package redistest runs real Redis servers for tests.
package redistest

import (
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// Server is a redis-server without persistence.
type Server struct {
	*process.Process
	Addr string

	cmd []string
}

// Start starts a server on a port of its own, with more arguments of
// redis-server. It ends with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	path := need.Redis(t)
	port := freePort(t)
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", port)}
	s.cmd = append([]string{path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--enable-debug-command", "yes", "--dir", t.TempDir()}, args...)
	s.Restart(t)
	return s
}

// freePort returns a port that was free a moment ago: redis-server can't say
// which one it was given. It is below those that systems hand out by
// themselves, or a connection of another test might take it.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Restart starts a server that was killed again, at the same address. It is empty.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Process = process.Start(t, exec.Command(s.cmd[0], s.cmd[1:]...))
	s.AwaitLine(t, "Ready to accept connections")
}

// Client returns a client that heeds the deadlines of contexts and learns of a
// refused connection at once. It is closed with the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true, DialerRetries: 1})
	t.Cleanup(func() { c.Close() })
	return c
}
