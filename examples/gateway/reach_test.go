package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/process"
)

// says starts a gateway with these flags before a node on a Unix socket that
// answers with the client's address.
func says(t *testing.T, args ...string) *process.Process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Real-IP"))
	}))
	node.Listener.Close()
	node.Listener = l
	node.Start()
	t.Cleanup(node.Close)
	return gateway(t, nil, append([]string{"-listen", "127.0.0.1:0", "-backend", "a=unix://" + path}, args...)...)
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs the loopback address 127.0.0.2")
	}
	addr := address(t, says(t, "-proxy-protocol", "127.0.0.1/32, 10.0.0.1"))
	const header = "PROXY TCP4 203.0.113.7 198.51.100.1 1234 80\r\n"
	for _, tt := range []struct{ name, from, header, want string }{
		{"proxy", "127.0.0.1", header, "200 203.0.113.7 203.0.113.7"},
		{"proxy without header", "127.0.0.1", "", "unexpected EOF"},
		{"client", "127.0.0.2", "", "200 127.0.0.2 127.0.0.2"},
		{"client with header", "127.0.0.2", header, "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(tt.from)}}
			conn, err := dialer.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, tt.header, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.66\r\nX-Real-IP: 192.0.2.66\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				if err.Error() != tt.want {
					t.Error(err)
				}
				return
			}
			body, _ := io.ReadAll(res.Body)
			if got := fmt.Sprint(res.StatusCode, " ", string(body)); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLocalAddr(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs the loopback addresses 127.0.0.2 and 127.0.0.3")
	}
	from := make(chan string, 100)
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		select {
		case from <- host:
		default: // enough of them
		}
	}))
	t.Cleanup(node.Close)
	addr := address(t, gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", "a="+node.URL,
		"-health", "/", "-health-interval", "10ms", "-local-addr", "127.0.0.2, 127.0.0.3"))
	res, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	seen := make(map[string]bool)
	for len(seen) < 2 {
		seen[<-from] = true // health checks come from both as well
	}
	if !seen["127.0.0.2"] || !seen["127.0.0.3"] {
		t.Errorf("connections from %v", seen)
	}
}
