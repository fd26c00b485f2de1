package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// from makes the client connect from this address, and begin with the header
// that a load balancer sends for somebody; nil: none.
func from(c *exampletest.Client, g *exampletest.Gateway, addr string, header []byte) *exampletest.Client {
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
		conn, err := dialer.DialContext(ctx, "tcp", g.Addr)
		if err == nil {
			_, err = conn.Write(header)
		}
		return conn, err
	}
	return c
}

func header(t *testing.T, version byte, client string) []byte {
	t.Helper()
	var b bytes.Buffer
	to := &net.TCPAddr{IP: net.ParseIP("198.51.100.1"), Port: 80}
	if _, err := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: net.ParseIP(client), Port: 1234}, to).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestProxyProtocol(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs the loopback address 127.0.0.2")
	}
	sees := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), " ", r.Header.Get("X-Real-IP"))
	}
	a, b := exampletest.StartBackend(t, "a", sees), exampletest.StartBackend(t, "b", sees)
	const slb, stranger = "127.0.0.1", "127.0.0.2"
	g := exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
		return serve(ctx, ln, balancer.Static(a.Spec(), b.Spec()), slb+"/32")
	})

	// The node sees the client's own address, and the client has its home by it.
	homes := make(map[string]bool)
	for i := range 20 {
		client := fmt.Sprintf("203.0.%d.7", i)
		c := from(exampletest.NewClient(t, g), g, slb, header(t, byte(1+i%2), client))
		got := c.Get(t, "/", "X-Forwarded-For", "192.0.2.66", "X-Real-IP", "192.0.2.66")
		if want := client + " " + client; got.Body != want {
			t.Errorf("the node saw %q, want %q", got.Body, want)
		}
		c.Stays(t, got.Backend, "/socket.io/")
		homes[got.Backend] = true
	}
	if len(homes) != 2 {
		t.Errorf("20 addresses, all at %v", homes)
	}

	// Nobody else can set it.
	c := from(exampletest.NewClient(t, g), g, stranger, nil)
	if got, want := c.Get(t, "/", "X-Forwarded-For", "192.0.2.66").Body, stranger+" "+stranger; got != want {
		t.Errorf("the node saw %q, want %q", got, want)
	}
	for version := range 2 {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(stranger)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%sGET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", header(t, byte(1+version), "192.0.2.66"))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("a stranger's header of version %d: %s, want 400", 1+version, res.Status)
		}
	}
	c = from(exampletest.NewClient(t, g), g, slb, nil)
	if res, err := c.Client.Get(exampletest.Site); err == nil {
		res.Body.Close()
		t.Errorf("a balancer without header: %s, want none", res.Status)
	}
}
