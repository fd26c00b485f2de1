// Package redistest runs real Redis servers for tests: a single one, a Cluster,
// and a primary with a replica and Sentinels.
package redistest

import (
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// Server is a redis-server without persistence.
type Server struct {
	*process.Process
	Addr string // 127.0.0.1 and a port

	cmd   []string
	ready string // what it prints once it serves
}

// Start starts a server on a port of its own, with more arguments of
// redis-server. It ends with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, freePorts(t, 1)[0], args...)
}

func start(t testing.TB, port string, args ...string) *Server {
	t.Helper()
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", port), ready: "Ready to accept connections"}
	s.cmd = append([]string{need.Redis(t), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0", "--dir", t.TempDir()}, args...)
	s.Restart(t)
	return s
}

// freePorts returns ports that were free a moment ago: redis-server can't say
// which one it was given. They are below those that systems hand out by
// themselves, or a connection of another test might take them.
func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for range 100 * n {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			defer l.Close() // once all are chosen, lest one is twice
			if ports = append(ports, port); len(ports) == n {
				return ports
			}
		}
	}
	t.Fatal("no port is free")
	return nil
}

// Restart starts a server that was killed again, at the same address. It has
// no keys; a node of a Cluster still knows the others.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Process = process.Start(t, exec.Command(s.cmd[0], s.cmd[1:]...))
	s.AwaitLine(t, s.ready)
}

// Client returns a client that heeds the deadlines of contexts and learns of a
// refused connection at once. It is closed with the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true, DialerRetries: 1})
	t.Cleanup(func() { c.Close() })
	return c
}

// admin returns a client for the few commands of one call, who closes it.
func (s *Server) admin() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr, DialerRetries: 1})
}

// do sends a command, which must not fail.
func (s *Server) do(t testing.TB, command ...any) *redis.Cmd {
	t.Helper()
	c := s.admin()
	defer c.Close()
	cmd := c.Do(t.Context(), command...)
	if err := cmd.Err(); err != nil {
		t.Fatalf("%v of %s: %v", command, s.Addr, err)
	}
	return cmd
}

// says tells whether the answer to a command is text that has all these lines.
func (s *Server) says(t testing.TB, command string, lines ...string) bool {
	c := s.admin()
	defer c.Close()
	var args []any
	for arg := range strings.FieldsSeq(command) {
		args = append(args, arg)
	}
	text, err := c.Do(t.Context(), args...).Text()
	got := strings.Split(text, "\r\n")
	return err == nil && !slices.ContainsFunc(lines, func(line string) bool { return !slices.Contains(got, line) })
}

// running tells whether the server takes connections.
func (s *Server) running() bool {
	conn, err := net.Dial("tcp", s.Addr)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// await asks until ok is true, and fails the test when that takes too long.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(process.Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
