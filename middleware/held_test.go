package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// wrapping has h see a body of a type that it can't know.
func wrapping(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = struct{ io.ReadCloser }{r.Body}
		h.ServeHTTP(w, r)
	})
}

// An uploading is a client that pauses within its upload.
type uploading struct {
	pool *balancer.Pool
	body *io.PipeWriter
	end  func() // the client leaves
	res  chan *http.Response
	err  chan error
}

// upload sends "hello" to a gateway around which is what around puts there, and pauses.
// The backend is served by serve.
func upload(t *testing.T, proto string, around func(http.Handler) http.Handler, serve func(conn net.Conn, req *http.Request)) *uploading {
	t.Helper()
	u := &uploading{res: make(chan *http.Response, 1), err: make(chan error, 1)}
	u.pool = balancer.Static("a=" + rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if req, err := http.ReadRequest(r); err == nil {
			serve(conn, req)
		}
	}))
	srv := httptest.NewUnstartedServer(around(newGateway(t, u.pool, nil)))
	srv.Config.Protocols = &http.Protocols{}
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	tr := &http.Transport{Protocols: &http.Protocols{}}
	tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
	tr.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
	t.Cleanup(tr.CloseIdleConnections)
	pr, pw := io.Pipe()
	u.body = pw
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	u.end = func() {
		cancel()
		pw.CloseWithError(context.Canceled) // net/http's client over HTTP/2 waits for its body
	}
	t.Cleanup(cancel)
	t.Cleanup(func() { pw.Close() })
	req, err := http.NewRequestWithContext(ctx, "POST", srv.URL, pr)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 10
	go func() {
		res, err := tr.RoundTrip(req)
		if err != nil {
			u.err <- err
			return
		}
		u.res <- res
	}()
	io.WriteString(pw, "hello")
	return u
}

// answer waits for the header of the answer.
func (u *uploading) answer(t *testing.T) *http.Response {
	t.Helper()
	select {
	case res := <-u.res:
		t.Cleanup(func() { res.Body.Close() })
		return res
	case err := <-u.err:
		t.Fatal(err)
		return nil
	}
}

// idle waits until the backend has no request any more.
func (u *uploading) idle(t *testing.T) {
	t.Helper()
	eventually(t, "the end of the request", func() bool { return u.pool.Get("a").InFlight() == 0 })
}

// protos runs f for each version of HTTP that a client may speak.
func protos(t *testing.T, f func(t *testing.T, proto string)) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			f(t, proto)
		})
	}
}

// some reads what a backend gets of a body.
func some(body io.Reader) (string, error) {
	b := make([]byte, 5)
	n, err := io.ReadFull(body, b)
	return string(b[:n]), err
}

// A backend that begins its answer before it has read the whole request gets all of that,
// whatever a middleware has made of the body, and what it says after the upload arrives
// as it comes.
func TestEarlyAnswerBesideAWrappedUpload(t *testing.T) {
	t.Parallel()
	for _, early := range []string{"", "early"} {
		t.Run("begins with "+early, func(t *testing.T) {
			t.Parallel()
			protos(t, func(t *testing.T, proto string) {
				begun, next := make(chan struct{}), make(chan string)
				u := upload(t, proto, wrapping, func(conn net.Conn, req *http.Request) {
					first, _ := some(req.Body)
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n")
					if early != "" {
						fmt.Fprintf(conn, "%x\r\n%s\r\n", len(early), early)
					}
					close(begun)
					rest, err := io.ReadAll(req.Body)
					if first+string(rest) != "helloworld" || err != nil {
						t.Errorf("the backend got %s%s, %v", first, rest, err)
					}
					for piece := range next {
						fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
					}
					io.WriteString(conn, "0\r\nSum: 42\r\n\r\n")
					io.Copy(io.Discard, conn)
				})
				<-begun
				io.WriteString(u.body, "world")
				u.body.Close()
				res := u.answer(t) // while the backend says nothing
				if got, err := io.ReadAll(io.LimitReader(res.Body, int64(len(early)))); string(got) != early || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				for range 3 {
					next <- "event"
					if got, err := some(res.Body); got != "event" {
						t.Errorf("%q, %v", got, err)
					}
				}
				close(next)
				if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil || res.Trailer.Get("Sum") != "42" {
					t.Errorf("%q, %v, trailer %v", rest, err, res.Trailer)
				}
				u.idle(t)
			})
		})
	}
}

// An answer that is complete, or too long to be held, doesn't wait for a client that
// pauses.
func TestEarlyAnswerToAPausedWrappedUpload(t *testing.T) {
	t.Parallel()
	around := map[string]func(http.Handler) http.Handler{
		"wrapped": wrapping,
		"a hidden writer": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { wrapping(h).ServeHTTP(hiding{w}, r) })
		},
	}
	for name, around := range around {
		for _, size := range []int{0, 2, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20} {
			for _, length := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%d bytes/length %v", name, size, length), func(t *testing.T) {
					t.Parallel()
					protos(t, func(t *testing.T, proto string) {
						if name == "a hidden writer" && proto == "HTTP/1.1" {
							t.Skip("nothing ends a read of the client there")
						}
						body := strings.Repeat("x", size)
						u := upload(t, proto, around, func(conn net.Conn, req *http.Request) {
							_, _ = some(req.Body)
							field := ""
							if length {
								field = fmt.Sprintf("Content-Length: %d\r\n", size)
							}
							io.WriteString(conn, "HTTP/1.1 401 No\r\n"+field+"\r\n"+body)
						})
						res := u.answer(t)
						got, err := io.ReadAll(res.Body)
						if res.StatusCode != 401 || string(got) != body || err != nil {
							t.Errorf("%s with %d bytes, %v", res.Status, len(got), err)
						}
						u.idle(t)
					})
				})
			}
		}
	}
}

// The end of the client ends the backend's request in each state of a held answer.
func TestClientLeavesBesideAHeldAnswer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size    int  // of what the backend says before the client leaves
		uploads bool // the upload is whole by then
		goesOn  bool // the backend then says more
	}{
		"held header":   {},
		"held body":     {size: 5},
		"passed on":     {size: 5, uploads: true},
		"full":          {size: 65 << 10, goesOn: true},
		"full by a lot": {size: 1 << 20, goesOn: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			protos(t, func(t *testing.T, proto string) {
				begun, left, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
				u := upload(t, proto, wrapping, func(conn net.Conn, req *http.Request) {
					_, _ = some(req.Body)
					io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat("x", tt.size))
					close(begun)
					if tt.goesOn {
						<-left
						var err error
						for err == nil {
							_, err = io.WriteString(conn, strings.Repeat("x", 10<<10))
						}
						ended <- err
						return
					}
					_, _ = some(req.Body)
					_, err := io.Copy(io.Discard, conn)
					ended <- err
				})
				<-begun
				if tt.uploads {
					io.WriteString(u.body, "world")
					u.body.Close()
				}
				if tt.uploads || tt.goesOn {
					res := u.answer(t)
					_, _ = some(res.Body)
				}
				u.end()
				close(left)
				if err := <-ended; errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
					t.Errorf("the backend's request ended with %v", err)
				}
				u.idle(t)
			})
		})
	}
}

func isTimeout(err error) bool {
	var wire net.Error
	return errors.As(err, &wire) && wire.Timeout()
}

// A body that can't be read while the answer is held fails the request: nothing was
// answered yet.
func TestUploadFailsBesideAHeldAnswer(t *testing.T) {
	t.Parallel()
	protos(t, func(t *testing.T, proto string) {
		begun := make(chan struct{})
		u := upload(t, proto, func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 7) }, func(conn net.Conn, req *http.Request) {
			_, _ = some(req.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nhalf")
			close(begun)
			_, _ = io.Copy(io.Discard, conn)
		})
		<-begun
		io.WriteString(u.body, "world")
		u.body.Close()
		if res := u.answer(t); res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Error(res.Status)
		}
		u.idle(t)
	})
}

// A backend that waits for the rest of a request which was stopped for the sake of its
// long answer doesn't wait for ever.
func TestSilenceAfterAStoppedUpload(t *testing.T) {
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
				_, _ = some(req.Body)
				io.WriteString(there, "HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat("x", 65<<10))
				time.Sleep(20 * time.Second) // which is not too long
				io.WriteString(there, "more")
				_, _ = io.Copy(io.Discard, req.Body)
			}()
			return here, nil
		}}
		pool := balancer.Static("a=http://a.test")
		gw := newGateway(t, pool, &limpet.Options{Transport: tr, Affinity: &affinity.Hash{Key: affinity.Header("X")}})
		srv := &http.Server{Handler: wrapping(gw)}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		go srv.Serve(l)
		defer srv.Close()
		here, there := net.Pipe()
		l.conns <- there
		defer here.Close()
		io.WriteString(here, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
		res, err := http.ReadResponse(bufio.NewReader(here), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if !strings.HasSuffix(string(got), "xmore") || err == nil {
			t.Errorf("%d bytes, %v: want an answer that breaks off", len(got), err)
		}
		synctest.Wait()
		if n := pool.Get("a").InFlight(); n != 0 {
			t.Errorf("%d requests are left", n)
		}
	})
}

// A client leaves while an answer lasts that its backend began without having taken the
// request's body: nobody reads that body any more.
func TestClientLeavesBesideAnUnreadBody(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ expect, sends string }{
		"unasked for":           {"Expect: 100-continue\n", ""},
		"unasked for, but sent": {"Expect: 100-continue\n", "0123456789"},
		"given up":              {"", "01234"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan error, 1)
			url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
				for { // the head only
					if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
						break
					}
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n: hi\r\n")
				_, err := io.Copy(io.Discard, r)
				left <- err
			})
			pool := balancer.Static("a=" + url)
			srv, _ := serve(t, pool, nil)
			conn, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nContent-Length: 10\n"+tt.expect+"\n")
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%v, %v", res, err)
			}
			io.WriteString(conn, tt.sends)
			conn.Close()
			if err := <-left; isTimeout(err) {
				t.Errorf("the backend's request ended with %v", err)
			}
		})
	}
}

// A held answer that breaks off isn't begun: the client is told what has happened.
func TestHeldAnswerBreaksOff(t *testing.T) {
	t.Parallel()
	protos(t, func(t *testing.T, proto string) {
		u := upload(t, proto, wrapping, func(conn net.Conn, req *http.Request) {
			_, _ = some(req.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		})
		if res := u.answer(t); res.StatusCode != http.StatusBadGateway {
			t.Error(res.Status)
		}
		u.idle(t)
	})
}

// A backend that answers without asking for the body, as its client expects, isn't going
// to read any: its answer isn't held.
func TestAnswerWithoutTheBodyIsNotHeld(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			for piece := range next {
				io.WriteString(conn, piece)
			}
		}
	})
	srv := httptest.NewServer(wrapping(newGateway(t, balancer.Static("a="+url), nil)))
	t.Cleanup(srv.Close)
	_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 10\n\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	for range 3 {
		next <- "event"
		if got, err := some(res.Body); got != "event" {
			t.Errorf("%q, %v", got, err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}
