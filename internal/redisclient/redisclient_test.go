package redisclient_test

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	ring := redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true})
	for _, tt := range []struct {
		name         string
		client       redis.UniversalClient
		want, pubsub string // in the error of Check and of CheckPubSub, "" for none
	}{
		{"none", nil, "no Client", "no Client"},
		{"nil Client", (*redis.Client)(nil), "no Client", "no Client"},
		{"nil Cluster", (*redis.ClusterClient)(nil), "no Client", "no Client"},
		{"ordinary", redis.NewClient(&redis.Options{}), "ContextTimeoutEnabled", "ContextTimeoutEnabled"},
		{"ordinary Cluster", redis.NewClusterClient(&redis.ClusterOptions{}), "ContextTimeoutEnabled", "ContextTimeoutEnabled"},
		{"ordinary Sentinel", redis.NewFailoverClient(&redis.FailoverOptions{}), "ContextTimeoutEnabled", "ContextTimeoutEnabled"},
		{"ordinary Ring", redis.NewRing(&redis.RingOptions{}), "ContextTimeoutEnabled", "Ring"},
		{"good", redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}), "", ""},
		{"good Cluster", redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true}), "", ""},
		{"good Ring", ring, "", "Ring"},
		{"of the caller's own", struct{ *redis.Ring }{ring}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, check := range map[string]struct {
				err  error
				want string
			}{
				"Check": {redisclient.Check(tt.client), tt.want}, "CheckPubSub": {redisclient.CheckPubSub(tt.client), tt.pubsub},
			} {
				if (check.err == nil) != (check.want == "") || check.err != nil && !strings.Contains(check.err.Error(), check.want) {
					t.Errorf("%s: %v, want %q", name, check.err, check.want)
				}
			}
		})
	}
}

// A server that closes the connection instead of answering gets an ordinary
// command several times, and that of Once one time.
func TestOnce(t *testing.T) {
	t.Parallel()
	for _, once := range []bool{false, true} {
		var commands atomic.Int64
		client := redis.NewClient(&redis.Options{
			Addr: hangUp(t, &commands), ContextTimeoutEnabled: true, MaxRetries: 2,
			Protocol: 2, DisableIdentity: true, // the connection begins with the command
		})
		defer client.Close()
		cmd := redis.NewCmd(t.Context(), "publish", "a", "b")
		var send redis.Cmder = cmd
		if once {
			send = redisclient.Once{Cmd: cmd}
		}
		if err := client.Process(t.Context(), send); err == nil {
			t.Errorf("once=%v: no error", once)
		}
		if n := commands.Load(); (n == 1) != once {
			t.Errorf("once=%v: the command was sent %d times", once, n)
		}
	}
}

// hangUp serves connections until the end of the test. It closes each of them when a
// PUBLISH comes, counts these, and answers anything else with an error.
func hangUp(t *testing.T, commands *atomic.Int64) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with l
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the first PUBLISH, or with the client
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if strings.Contains(strings.ToLower(string(buf[:n])), "publish") {
						commands.Add(1)
						return
					}
					io.WriteString(conn, "-ERR unknown command\r\n")
				}
			}()
		}
	}()
	return l.Addr().String()
}
