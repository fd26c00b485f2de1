package balancer_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// A recorder is a connection that keeps what is written to it and answers with
// 204 when a whole request was.
type recorder struct {
	net.Conn
	sent chan string
}

// record returns a connection to what hears one request, byte by byte.
func record() *recorder {
	here, there := net.Pipe()
	r := &recorder{Conn: here, sent: make(chan string, 1)}
	go func() {
		defer there.Close()
		var all bytes.Buffer
		if req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(there, &all))); err == nil {
			io.Copy(io.Discard, req.Body)
			io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}
		r.sent <- all.String()
	}()
	return r
}

// A form is a request as its parts are written: the fields sorted, since their
// order says nothing, and the body without its framing.
func form(t *testing.T, sent string) string {
	t.Helper()
	head, _, ok := strings.Cut(sent, "\r\n\r\n")
	if !ok {
		return "no request: " + sent
	}
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
	if err != nil {
		return "no request: " + head
	}
	body, err := io.ReadAll(req.Body)
	return fmt.Sprintf("%q %q %v %v", lines, body, req.Trailer, err)
}

// Whatever writes requests: they are those that net/http writes.
func TestRequestsAsNetHTTPWritesThem(t *testing.T) {
	t.Parallel()
	s := reach(t, "http://backend.example:8080")
	conns := make(chan *recorder, 1)
	s.Dial = func(context.Context, string, string) (net.Conn, error) {
		r := record()
		conns <- r
		return r, nil
	}
	urls := []url.URL{
		{Path: "/"}, {}, {Path: "/a b/ü"}, {Path: "/a/b", RawPath: "/a%2fb"}, {Path: "*"}, {Path: "//a"}, {Path: "/a", RawQuery: "b=1;c=|^ü&&"}, {ForceQuery: true},
		{Path: "/a", Fragment: "f"}, {Opaque: "/x|y^z?q"}, {Opaque: "//other.example/x", Scheme: "ftp"}, {Opaque: "x"}, {Path: "a", Host: "elsewhere"}, {Opaque: "/\r\nX: y"},
		{Path: "/a", RawQuery: "\x00"}, {Path: "/a\nb\x7f"}, {Path: "/" + strings.Repeat("long", 3000)}, {Path: "/a", RawQuery: "x\ty"}, {User: url.UserPassword("a", "b"), Path: "/x"},
	}
	hosts := []string{"", "h", "h:80", "[fe80::1%25en0]:80", "[fe80::1%en0]", "bücher.example:1", "h/x", "h\r\nX: y", "h x", "\x00", "h,i", "HOST"}
	headers := []http.Header{
		nil, {}, {"User-Agent": {"ua"}}, {"User-Agent": {""}}, {"User-Agent": {"  a b\t"}}, {"User-Agent": {"a", "b"}}, {"User-Agent": nil},
		{"X": {"a", "b", ""}}, {"X": {" padded\t"}}, {"X": nil}, {"x-Lower": {"é\xff"}}, {"Connection": {"close"}}, {"Connection": {"x, Close"}}, {"Te": {"trailers"}},
		{"Host": {"evil"}, "Content-Length": {"1"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"Y"}}, {"Cookie": {"a=b", "c=d"}, "Accept": {strings.Repeat("x", 9000)}}, {"Expect": {"nothing"}},
	}
	methods := []string{"", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get", "A!B"}
	trailers := []http.Header{nil, nil, nil, {"X": {"y"}, "A": {"b", "c"}}, {"x-late": nil}, {"Content-Length": {"1"}}}
	codings := [][]string{nil, nil, nil, {"chunked"}, {"identity"}, {"gzip"}}

	random := rand.New(rand.NewPCG(1, 2))
	for n := range 1500 {
		u := urls[random.IntN(len(urls))]
		build := func() *http.Request {
			return &http.Request{URL: &u}
		}
		req, want := build(), build()
		method, host, header, trailer := methods[random.IntN(len(methods))], hosts[random.IntN(len(hosts))], headers[random.IntN(len(headers))], trailers[random.IntN(len(trailers))]
		coding, body, closes := codings[random.IntN(len(codings))], random.IntN(6), random.IntN(8) == 0
		for _, r := range []*http.Request{req, want} {
			r.Method, r.Host, r.Header, r.Trailer, r.TransferEncoding, r.Close = method, host, header.Clone(), trailer.Clone(), coding, closes
			switch body {
			case 1:
				r.Body = http.NoBody
			case 2:
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
			case 3, 4:
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), int64(body-4)
			case 5: // all of it is there
				r.Body, r.ContentLength = &buffered{Reader: strings.NewReader("hello"), there: 5}, 5
				r.GetBody = func() (io.ReadCloser, error) { return nil, io.EOF }
			}
		}
		// As RoundTrip says, and a body whose length isn't known is chunked whatever the method.
		there := u
		there.Scheme, there.Host = "http", "backend.example:8080"
		want.URL = &there
		if body == 3 || body == 4 {
			want.ContentLength, want.TransferEncoding = -1, []string{"chunked"}
		}
		var written bytes.Buffer
		bad := want.Write(&written)

		res, err := s.RoundTrip(req.WithContext(balancer.WithBackend(t.Context(), s.Backend)))
		got := "nothing"
		select {
		case c := <-conns:
			if err != nil {
				c.Close()
			}
			got = <-c.sent
		default:
		}
		about := fmt.Sprintf("%d: %q %+v host %q header %q trailer %q coding %q body %d close %v", n, method, u, host, header, trailer, coding, body, closes)
		switch {
		case err == nil:
			res.Body.Close()
			if bad != nil {
				t.Errorf("%s\nsent %q, want error %v", about, got, bad)
			} else if got, want := form(t, got), form(t, written.String()); got != want {
				t.Errorf("%s\nsent %s\nwant %s", about, got, want)
			}
		case bad == nil && !strings.HasPrefix(form(t, written.String()), "no request"):
			t.Errorf("%s\nfails: %v, want %q", about, err, written.String())
		case strings.Contains(got, "\r\n\r\n") && bad != nil:
			t.Errorf("%s\nfails: %v, but sent %q", about, err, got)
		}
		if t.Failed() {
			return
		}
	}
}
