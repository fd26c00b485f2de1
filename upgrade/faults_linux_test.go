package upgrade_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// What a dialler has done to its socket doesn't stop the tunnels beside it when
// the backend doesn't read.
func TestStrangeSockets(t *testing.T) {
	t.Parallel()
	for name, strange := range map[string]func(t *testing.T, c *net.TCPConn){
		"lingering": func(t *testing.T, c *net.TCPConn) { c.SetLinger(10) },
		"blocking": func(t *testing.T, c *net.TCPConn) {
			f, err := c.File()
			if err != nil {
				t.Fatal(err)
			}
			f.Fd() // has both block
			f.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := &upgrade.Proxy{}
			h, ends := backends(t)
			r := newRig(t, setups[0], proxy, h)
			proxy.Dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", out.URL.Host)
				if err == nil {
					strange(t, conn.(*net.TCPConn))
				}
				return conn, err
			}
			full, stuck := r.client(), wait(t, ends)
			tunnel := wait(t, r.tunnels)
			var others [4][2]*end // on all loops
			for i := range others {
				others[i] = [2]*end{r.client(), wait(t, ends)}
			}
			for msg := make([]byte, 1<<20); ; { // no message that makes sense, until nothing moves any more
				full.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				if n, err := full.Write(msg); n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			tunnel.Close(1012, "")
			upgrade.Advance(proxy, 3*time.Second)
			began := time.Now()
			for _, o := range others {
				o[0].send(text("x", true))
				o[1].expect(string(text("x", true)))
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("others waited %v", took)
			}
			stuck.reset()
			full.Close()
			r.wantSummary(upgrade.SideGateway, 1012)
		})
	}
}
