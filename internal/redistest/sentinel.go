package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/need"
)

// Sentinel is a primary with one replica and three Sentinels that watch them.
type Sentinel struct {
	Primary, Replica *Server // Failover makes one the other
	Sentinels        []*Server
	Name             string // of the set, which clients ask the Sentinels for
}

// StartSentinel starts a set and waits until it is able to fail over, which it
// does one or two seconds after the primary has stopped answering. It ends with
// the test.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	s := &Sentinel{Name: "limpet", Primary: Start(t)}
	host, port, _ := net.SplitHostPort(s.Primary.Addr)
	s.Replica = Start(t, "--replicaof", host+" "+port)
	await(t, "the replica to have its primary's data", func() bool {
		return s.Replica.says(t, "info replication", "role:slave", "master_link_status:up")
	})
	for range 3 {
		s.Sentinels = append(s.Sentinels, startSentinel(t, fmt.Sprintf(`bind 127.0.0.1
sentinel monitor %[1]s %[2]s %[3]s 2
sentinel down-after-milliseconds %[1]s 1000
sentinel failover-timeout %[1]s 3000
`, s.Name, host, port)))
	}
	s.await(t, "the Sentinels to know each other and the replica", func(set map[string]string) bool {
		return set["flags"] == "master" && set["num-slaves"] == "1" && set["num-other-sentinels"] == "2"
	})
	return s
}

func startSentinel(t testing.TB, conf string) *Server {
	t.Helper()
	port, dir := freePorts(t, 1)[0], t.TempDir()
	file := filepath.Join(dir, "sentinel.conf") // it writes there itself
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", port), ready: `\+monitor`}
	s.cmd = []string{need.Redis(t), file, "--sentinel", "--port", port, "--dir", dir}
	s.Restart(t)
	return s
}

// Client returns a client that asks the Sentinels for the primary, heeds the
// deadlines of contexts and learns of a refused connection at once. It is closed
// with the test.
func (s *Sentinel) Client(t testing.TB) *redis.Client {
	t.Helper()
	o := &redis.FailoverOptions{MasterName: s.Name, ContextTimeoutEnabled: true, DialerRetries: 1}
	for _, w := range s.Sentinels {
		o.SentinelAddrs = append(o.SentinelAddrs, w.Addr)
	}
	c := redis.NewFailoverClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// Failover kills the primary and waits until the replica has taken over, which
// is the Primary then. The Replica can be restarted, and follows it soon.
func (s *Sentinel) Failover(t testing.TB) {
	t.Helper()
	s.Primary.Kill()
	s.AwaitFailover(t)
}

// AwaitFailover waits until the replica has taken over from a primary that has
// stopped answering.
func (s *Sentinel) AwaitFailover(t testing.TB) {
	t.Helper()
	s.Primary, s.Replica = s.Replica, s.Primary
	s.await(t, "the failover", func(set map[string]string) bool {
		return net.JoinHostPort(set["ip"], set["port"]) == s.Primary.Addr
	})
	await(t, "the new primary", func() bool { return s.Primary.says(t, "info replication", "role:master") })
}

// await waits until all Sentinels that are running are content.
func (s *Sentinel) await(t testing.TB, what string, ok func(set map[string]string) bool) {
	t.Helper()
	for _, w := range s.Sentinels {
		c := redis.NewSentinelClient(&redis.Options{Addr: w.Addr})
		defer c.Close()
		await(t, what, func() bool {
			set, err := c.Master(t.Context(), s.Name).Result()
			return err == nil && ok(set) || !w.running()
		})
	}
}
