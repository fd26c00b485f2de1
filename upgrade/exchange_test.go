package upgrade_test

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/upgrade"
)

// A byByte is a connection that is read byte by byte.
type byByte struct{ net.Conn }

func (c byByte) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(1, len(p))]) }

// A 101 that comes in one piece is parsed by this package, if it is a usual one, and by net/http
// otherwise. Both make the same of it.
func TestSwitchingAlike(t *testing.T) {
	t.Parallel()
	for name, res := range map[string]string{
		"usual":       switching,
		"subprotocol": strings.Replace(switching, "\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n", 1),
		"spaces":      strings.Replace(switching, "Upgrade: websocket", "UPGRADE: \t WebSocket \t", 1),
		"lower case":  strings.Replace(switching, "Connection: Upgrade", "connection: upgrade", 1),
		"list":        strings.Replace(switching, "Connection: Upgrade", "Connection: keep-alive, Upgrade", 1),
		"close":       strings.Replace(switching, "Connection: Upgrade", "Connection: Upgrade\r\nConnection: close", 1),
		"length":      strings.Replace(switching, "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", 1),
		"pragma":      strings.Replace(switching, "\r\n\r\n", "\r\nPragma: no-cache\r\n\r\n", 1),
		"folded":      strings.Replace(switching, "\r\n\r\n", "\r\nX-A: b\r\n c\r\n\r\n", 1),
		"no reason":   strings.Replace(switching, " Switching Protocols", "", 1),
		"hints":       "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + switching,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connect := func(wrap func(net.Conn) net.Conn) any {
				p := answer(t, res)
				dial := p.Dial
				p.Dial = func(ctx context.Context, r *http.Request) (net.Conn, error) {
					conn, err := dial(ctx, r)
					return wrap(conn), err
				}
				tunnel, err := p.Connect(request(t), upgrade.ConnectOptions{})
				if err != nil {
					return err.Error()
				}
				defer tunnel.Close(1001, "")
				got := *tunnel.Response()
				got.Request = nil
				return got
			}
			got := connect(func(c net.Conn) net.Conn { return c })
			want := connect(func(c net.Conn) net.Conn { return byByte{c} })
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
