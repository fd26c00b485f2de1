package middleware_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

const (
	goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	hint = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
)

// secret is the answer to another client. It goes through the same pooled buffers.
var secret = strings.Repeat("SECRET", 300)

// scold is a body that changes the header of the client's answer within Read.
type scold struct {
	io.ReadCloser
	w http.ResponseWriter
}

func (s scold) Read(p []byte) (int, error) {
	s.w.Header().Set("Read", "under way")
	defer s.w.Header().Del("Read")
	return s.ReadCloser.Read(p)
}

// hiding is a writer that doesn't say what it wraps.
type hiding struct{ http.ResponseWriter }

// counting is a writer that takes each status for the final one.
type counting struct {
	http.ResponseWriter
	statuses []int
}

func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }
func (c *counting) WriteHeader(status int) {
	c.statuses = append(c.statuses, status)
	c.ResponseWriter.WriteHeader(status)
}

// Whatever a read of the body does, and whenever the backend speaks: the client gets
// the backend's words one after the other, whole, and nothing else.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	arounds := []struct {
		name    string
		touches bool // the gateway can't know what a read does
		own     bool // and can't write the 100 itself
		around  func(http.Handler) http.Handler
	}{
		{"bare", false, false, func(h http.Handler) http.Handler { return h }},
		{"MaxBytesHandler", true, false, func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) }},
		{"RequestSize", true, false, middleware.RequestSize(1 << 20)},
		{"a body that touches the header", true, false, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = scold{r.Body, w}
				h.ServeHTTP(w, r)
			})
		}},
		{"a writer without Unwrap", true, true, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(hiding{w}, r) })
		}},
		{"a writer that counts", false, false, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Outer", "1")
				c := &counting{ResponseWriter: w}
				h.ServeHTTP(c, r)
				if slices.Contains(c.statuses, 100) {
					t.Error("a middleware was told of a 100")
				}
			})
		}},
		{"no Expect any more", false, false, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Del("Expect")
				h.ServeHTTP(w, r)
			})
		}},
	}
	long := strings.Repeat("0123456789", 20_000)
	const early, late = "HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
	backends := []struct {
		name   string
		says   string // to the header
		reads  bool   // the body, and then
		last   string
		told   []string // the statuses that the client gets
		dies   bool
		answer string
	}{
		{name: "early answer", last: early, told: []string{"401"}, answer: "no"},
		{name: "early answer, long", last: fmt.Sprintf("HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(long), long), told: []string{"401"}, answer: long},
		{name: "103, early answer", says: hint, last: early, told: []string{"103", "401"}, answer: "no"},
		{name: "100", says: goOn, reads: true, last: late, told: []string{"100", "200"}, answer: "ok"},
		{name: "100 103", says: goOn + hint, reads: true, last: late, told: []string{"100", "103", "200"}, answer: "ok"},
		{name: "103 100", says: hint + goOn, reads: true, last: late, told: []string{"103", "100", "200"}, answer: "ok"},
		{name: "100 103 early answer", says: goOn + hint + hint, last: early, told: []string{"100", "103", "103", "401"}, answer: "no"},
		{name: "100 100 103", says: goOn + goOn + hint, reads: true, last: hint + late, told: []string{"100", "103", "103", "200"}, answer: "ok"},
		{name: "100, death", says: goOn, dies: true, told: []string{"100", "502"}, answer: "Bad Gateway\n"},
	}
	for _, a := range arounds {
		for _, b := range backends {
			for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(a.name+"/"+b.name+"/"+proto, func(t *testing.T) {
					t.Parallel()
					url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
						for {
							req, err := http.ReadRequest(r)
							if err != nil {
								return
							}
							if req.Method == "GET" {
								io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1800\r\n\r\n"+secret)
								continue
							}
							io.WriteString(conn, b.says)
							if b.dies {
								req.Body.Read(make([]byte, 1))
								return
							}
							if b.reads {
								io.Copy(io.Discard, req.Body)
							}
							io.WriteString(conn, b.last)
							io.Copy(io.Discard, r)
							return
						}
					})
					pool := balancer.Static("a=" + url)
					gw := newGateway(t, pool, &limpet.Options{Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}})
					srv := httptest.NewUnstartedServer(a.around(gw))
					srv.Config.Protocols = &http.Protocols{}
					srv.Config.Protocols.SetHTTP1(true)
					srv.Config.Protocols.SetUnencryptedHTTP2(true)
					srv.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
					srv.Start()
					t.Cleanup(srv.Close)
					ask := askHTTP1
					if proto == "HTTP/2.0" {
						ask = askHTTP2
					}
					// Where the gateway mustn't write while the body is read, a 103 depends on
					// when it comes. The server's own 100 comes when the body is read.
					unsure := func(status string) bool {
						return status == "103" && (a.touches || proto == "HTTP/2.0") ||
							status == "100" && (a.own || proto == "HTTP/2.0" || a.name == "no Expect any more")
					}
					sure := slices.DeleteFunc(slices.Clone(b.told), unsure)
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() {
							for range 5 {
								if body, err := other(srv); body != secret || err != nil {
									t.Errorf("another client got %d bytes, %v", len(body), err)
								}
								told, answer := ask(t, srv)
								if heard := slices.DeleteFunc(slices.Clone(told), unsure); !slices.Equal(heard, sure) || answer != b.answer {
									t.Errorf("told %v with %.40q, want %v with %.40q", told, answer, b.told, b.answer)
								}
								if strings.Count(strings.Join(told, " "), "100") > 1 {
									t.Errorf("told %v", told)
								}
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}

// other is another client, whose connection isn't kept.
func other(srv *httptest.Server) (string, error) {
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// askHTTP1 sends a body that expects a 100 without waiting for that, and returns the
// statuses of all that comes back and the answer, of which nothing may be left.
func askHTTP1(t *testing.T, srv *httptest.Server) (told []string, answer string) {
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\nhalf")
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Errorf("after %v: %v", told, err)
			return told, ""
		}
		told = append(told, fmt.Sprint(res.StatusCode))
		for name := range res.Header {
			if !fieldOf(res.StatusCode, name) {
				t.Errorf("%s with %q", res.Status, res.Header)
			}
		}
		if res.StatusCode == 100 {
			io.WriteString(conn, "half")
		}
		if res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		_ = conn.(*net.TCPConn).CloseWrite() // the server lingers otherwise
		if rest, _ := io.ReadAll(r); len(rest) > 0 || err != nil {
			t.Errorf("%v, and %q is left", err, rest)
		}
		return told, string(body)
	}
}

// fieldOf reports whether an answer with that status may have the field.
func fieldOf(status int, name string) bool {
	switch status {
	case 100:
		return false
	case 103:
		return name == "Link" || name == "Outer"
	}
	return slices.Contains([]string{"Content-Length", "Content-Type", "X-Content-Type-Options", "Cache-Control", "Vary", "Date", "Connection", "Outer"}, name)
}

// askHTTP2 waits for the 100 before it sends the body.
func askHTTP2(t *testing.T, srv *httptest.Server) (told []string, answer string) {
	tr := &http.Transport{ExpectContinueTimeout: time.Hour, Protocols: &http.Protocols{}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(code))
		for name := range h {
			if !fieldOf(code, name) {
				t.Errorf("%d with %q", code, h)
			}
		}
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, "POST", srv.URL, strings.NewReader("halfhalf"))
	req.Header.Set("Expect", "100-continue")
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.ProtoMajor != 2 {
		t.Errorf("%s, %v", res.Proto, err)
	}
	mu.Lock()
	defer mu.Unlock()
	return append(told, fmt.Sprint(res.StatusCode)), string(body)
}

// Over HTTP/2 the server sends 100 to a client that waits for it, once, and a hint that
// comes after it reaches the client too.
func TestHintsOverHTTP2(t *testing.T) {
	t.Parallel()
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if req, err := http.ReadRequest(r); err == nil {
			_, _ = io.ReadFull(req.Body, make([]byte, 1))
			io.WriteString(conn, goOn+hint)
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	srv := httptest.NewUnstartedServer(newGateway(t, balancer.Static("a="+url), &limpet.Options{Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}}))
	srv.Config.Protocols = &http.Protocols{}
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	for range 20 {
		if told, answer := askHTTP2(t, srv); !slices.Equal(told, []string{"100", "103", "200"}) || answer != "ok" {
			t.Errorf("told %v with %q", told, answer)
		}
	}
}

// A body that crosses a limit of net/http's while the backend answers early.
func TestMaxBytesBesideAnEarlyAnswer(t *testing.T) {
	t.Parallel()
	const limit = 1 << 10
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.ReadFull(req.Body, make([]byte, limit))
		io.WriteString(conn, hint+"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n"+strings.Repeat("X: y\r\n", 12)+"\r\nno")
		io.Copy(io.Discard, r)
	})
	gw := newGateway(t, balancer.Static("a="+url), nil)
	for name, h := range map[string]http.Handler{"MaxBytesHandler": http.MaxBytesHandler(gw, limit), "RequestSize": middleware.RequestSize(limit)(gw)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewUnstartedServer(h)
			srv.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
			srv.Start()
			t.Cleanup(srv.Close)
			var wg sync.WaitGroup
			for n := range 8 {
				wg.Go(func() {
					for k := range 20 {
						conn, err := net.Dial("tcp", srv.Listener.Addr().String())
						if err != nil {
							t.Error(err)
							return
						}
						_ = conn.SetDeadline(time.Now().Add(patience))
						fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 2*limit, make([]byte, limit))
						for range (n*20 + k) * 2 { // the answer is on its way meanwhile
							_ = append([]byte(nil), secret...)
						}
						conn.Write(make([]byte, 10))
						r := bufio.NewReader(conn)
						res, err := http.ReadResponse(r, nil)
						for err == nil && res.StatusCode < 200 {
							res, err = http.ReadResponse(r, nil)
						}
						if err != nil || res.StatusCode != 401 && res.StatusCode != 413 {
							t.Errorf("%v, %v", res, err)
						}
						conn.Close()
					}
				})
			}
			wg.Wait()
		})
	}
}

// And without an answer it is 413, as with the gateway's own limit.
func TestMaxBytesIsTooLarge(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	gw := newGateway(t, pool, nil)
	for name, h := range map[string]http.Handler{"MaxBytesHandler": http.MaxBytesHandler(gw, 5), "RequestSize": middleware.RequestSize(5)(gw)} {
		for _, body := range []string{"hello", "hello!"} {
			tooLarge(t, name, h, body, body != "hello")
		}
	}
}

// pipes is a listener of connections within the process, for time that is none.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A backend that knows nothing of Expect gets the body after five seconds, and the
// client is told to send it, whatever else the backend says before that.
func TestContinueAfterSilence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, says string
		told       []int
	}{
		{"nothing", "", []int{100, 200}},
		{"103", hint, []int{103, 100, 200}},
	} {
		for _, limit := range []int64{0, 100} { // of net/http's
			t.Run(fmt.Sprint(tt.name, ", limit ", limit), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					tr := &balancer.Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
						here, there := net.Pipe()
						go func() {
							defer there.Close()
							req, err := http.ReadRequest(bufio.NewReader(there))
							if err != nil {
								return
							}
							io.WriteString(there, tt.says)
							body, err := io.ReadAll(req.Body)
							fmt.Fprintf(there, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s %v", body, err)
						}()
						return here, nil
					}}
					gw := newGateway(t, balancer.Static("a=http://a.test"), &limpet.Options{Transport: tr, Affinity: &affinity.Hash{Key: affinity.Header("X")}})
					h := http.Handler(gw)
					if limit > 0 {
						h = http.MaxBytesHandler(gw, limit)
					}
					srv := &http.Server{Handler: h}
					l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
					go srv.Serve(l)
					defer srv.Close()
					here, there := net.Pipe()
					l.conns <- there
					defer here.Close()
					begun := time.Now()
					io.WriteString(here, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
					r := bufio.NewReader(here)
					var told []int
					for {
						res, err := http.ReadResponse(r, nil)
						if err != nil {
							t.Fatalf("after %v: %v", told, err)
						}
						told = append(told, res.StatusCode)
						if res.StatusCode == 100 {
							if after := time.Since(begun).Truncate(time.Millisecond); after != 5*time.Second {
								t.Errorf("100 after %v", after)
							}
							io.WriteString(here, "hello")
						}
						if res.StatusCode >= 200 {
							if body, err := io.ReadAll(res.Body); string(body) != "hello <nil>" || err != nil {
								t.Errorf("%q, %v", body, err)
							}
							break
						}
					}
					if !slices.Equal(told, tt.told) {
						t.Errorf("told %v, want %v", told, tt.told)
					}
				})
			})
		}
	}
}

// An answer to a body that mustn't be read beside it goes on for as long as it likes,
// although it was too long to be held and the reading was stopped. The end of the client
// ends it all the same, when something is written to it.
func TestAnswerOutlivesTheUpload(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64<<10)
	next, ended := make(chan string), make(chan error, 1)
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path == "/leave" {
			req.Body.Read(make([]byte, 1))
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+long)
			<-next
			for err == nil {
				_, err = io.WriteString(conn, "piece")
			}
			ended <- err
			return
		}
		io.ReadFull(req.Body, make([]byte, 5)) // what is unread at the close makes that a reset
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+long)
		for piece := range next {
			io.WriteString(conn, piece)
		}
	})
	srv := httptest.NewServer(http.MaxBytesHandler(newGateway(t, balancer.Static("a="+url), nil), 1<<20))
	t.Cleanup(srv.Close)
	_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nContent-Length: 1000\n\nbegin")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, len(long))); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		next <- "piece"
		if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}

	next = make(chan string)
	conn, r := raw(t, srv, "POST /leave HTTP/1.1\nHost: x\nContent-Length: 1000\n\nbegin")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	conn.Close()
	close(next)
	if err := <-ended; isTimeout(err) {
		t.Errorf("the backend's request ended with %v", err)
	}
}
