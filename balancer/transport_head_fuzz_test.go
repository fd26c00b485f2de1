package balancer_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// A notebook is a connection to a backend that keeps what it is asked, and answers
// when that has come to this end.
type notebook struct {
	*script
	end   string
	asked bytes.Buffer
}

func (n *notebook) Write(p []byte) (int, error) {
	n.asked.Write(p)
	if bytes.HasSuffix(n.asked.Bytes(), []byte(n.end)) {
		return n.script.Write(p)
	}
	return len(p), nil
}

// FuzzHead compares the request that a Transport writes by itself with the one that
// http.Request.Write writes for it when there is a trace: they differ in the order
// of the fields only, and http.ReadRequest finds one request, and nothing behind it.
func FuzzHead(f *testing.F) {
	f.Add("GET", "/a?b", "", "host", "X-A", "v", false)
	f.Add("POST", "/a b", "//x", "h:80", "Content-Length", "7", true)
	f.Add("PUT", "/\x80", "", "[::1]:80", "User-Agent", "", true)
	f.Add("", "//a|b", "/x y", "", "host", "a\r\nb", false)
	f.Add("PATCH", "*", "*", "h", "Transfer-Encoding", "chunked", false)
	f.Add("GET", "", "", "h", "Expect", "100-continue", false)
	f.Add("GET", "/", "http:x", "a_b", "Connection", " close ", false)
	b, err := balancer.NewBackend("a", "http://a.test", 1)
	must(f, err)
	f.Fuzz(func(t *testing.T, method, path, opaque, host, name, value string, body bool) {
		if method == http.MethodConnect || strings.EqualFold(name, "Expect") {
			return // the answer decides what is sent
		}
		write := func(ctx context.Context) string {
			c := &notebook{script: newScript("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 1<<10), end: "\r\n\r\n"}
			tr := &balancer.Transport{Dial: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
			req := (&http.Request{
				Method: method, Host: host, Header: http.Header{name: {value, value + "2"}},
				URL: &url.URL{Scheme: "http", Host: "b", Path: path, Opaque: opaque, RawQuery: "q=1"},
			}).WithContext(balancer.WithBackend(ctx, b))
			if body {
				req.Body, req.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
				c.end += "hello"
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				return ""
			}
			res.Body.Close()
			return c.asked.String()
		}
		own := write(t.Context())
		theirs := write(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{}))
		if lines(own) != lines(theirs) {
			t.Fatalf("%q\nnet/http writes\n%q", own, theirs)
		}
		if own == "" {
			return
		}
		in := bufio.NewReader(strings.NewReader(own))
		req, err := http.ReadRequest(in)
		if errors.As(err, new(*url.Error)) || err != nil && strings.Contains(err.Error(), "malformed Host") {
			return // what the caller asked for, in its place
		}
		if err != nil {
			t.Fatalf("%q can't be read: %v", own, err)
		}
		io.Copy(io.Discard, req.Body)
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			t.Fatalf("%q is more than one request", own)
		}
	})
}

// lines returns a request with its fields in order.
func lines(request string) string {
	head, rest, _ := strings.Cut(request, "\r\n\r\n")
	fields := strings.Split(head, "\r\n")
	slices.Sort(fields[1:])
	return strings.Join(fields, "\r\n") + "\r\n\r\n" + rest
}
