package upgrade_test

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/upgrade"
)

// A tunnel whose backend connection somebody closes before a loop could take its socket over
// ends, and so does its client's connection.
func TestClosedBeforeTakeOver(t *testing.T) {
	t.Parallel()
	var dialed net.Conn
	proxy := &upgrade.Proxy{Dial: func(ctx context.Context, out *http.Request) (net.Conn, error) {
		var err error
		dialed, err = sockets.Dial(ctx, &net.Dialer{}, "tcp", out.URL.Host)
		return dialed, err
	}}
	h, ends := backends(t)
	r := newRig(t, setup{own: true, use: func(*upgrade.Proxy) {}}, proxy, h)
	connect := r.front.Config.Handler
	r.front.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		connect.ServeHTTP(closingWriter{w, func() { dialed.Close() }}, in)
	})
	client, backend := r.client(), wait(t, ends)
	client.expectEOF()
	backend.expectEOF()
	if s := wait(t, r.closed); s.Err == nil {
		t.Errorf("%+v, want an error", s)
	}
}

// A closingWriter is a writer that calls close when its connection is taken over.
type closingWriter struct {
	http.ResponseWriter
	close func()
}

func (c closingWriter) Unwrap() http.ResponseWriter {
	c.close()
	return c.ResponseWriter
}
