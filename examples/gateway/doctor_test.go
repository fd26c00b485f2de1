package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/interop"
)

// A fakeNode is as much of a Socket.IO 4 server as the doctor needs.
type fakeNode struct {
	mu       sync.Mutex
	sessions map[string]chan string // what the next poll of each session gets
}

var fakeSessions atomic.Int64

func (n *fakeNode) open() (sid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sessions == nil {
		n.sessions = make(map[string]chan string)
	}
	sid = fmt.Sprint("sid-", fakeSessions.Add(1))
	n.sessions[sid] = make(chan string, 10)
	return sid
}

func (n *fakeNode) session(sid string) chan string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[sid]
}

const fakeOpen = `0{"sid":%q,"upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	sid, upgrade := q.Get("sid"), r.Header.Get("Upgrade") == "websocket"
	queue := n.session(sid)
	switch {
	case r.URL.Path != "/socket.io/":
		http.NotFound(w, r)
	case sid != "" && queue == nil:
		engineError(w, `{"code":1,"message":"Session ID unknown"}`)
	case upgrade:
		n.serveSocket(w, r, sid)
	case q.Get("transport") == "websocket":
		engineError(w, `{"code":3,"message":"Bad request"}`)
	case sid == "":
		fmt.Fprintf(w, fakeOpen, n.open())
	case r.Method == http.MethodPost:
		body, _ := io.ReadAll(r.Body)
		if strings.HasPrefix(string(body), "40/") {
			queue <- `44/limpet-doctor,{"message":"Invalid namespace"}`
		}
		io.WriteString(w, "ok")
	default:
		select {
		case packet := <-queue:
			io.WriteString(w, packet)
		case <-r.Context().Done():
		}
	}
}

func engineError(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	io.WriteString(w, body)
}

func (n *fakeNode) serveSocket(w http.ResponseWriter, r *http.Request, sid string) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	say := func(text string) { _ = conn.Write(r.Context(), websocket.MessageText, []byte(text)) }
	if sid == "" {
		say(fmt.Sprintf(fakeOpen, n.open()))
	}
	for {
		_, data, err := conn.Read(r.Context())
		switch {
		case err != nil:
			return
		case string(data) == "2probe":
			say("3probe")
		case strings.HasPrefix(string(data), "40/"):
			say(`44/limpet-doctor,{"message":"Invalid namespace"}`)
		}
	}
}

// examined returns what the doctor says about a set-up, and the exit status.
func examined(t *testing.T, target string, flags ...string) (report string, status int) {
	t.Helper()
	var text strings.Builder
	status, asked := doctorMain(t.Context(), append([]string{"-doctor", target, "-doctor-hold", "300ms"}, flags...), &text)
	if !asked {
		t.Error("the doctor doesn't think that it was asked")
	}
	return text.String(), status
}

// proxyTo passes requests on to the servers in turn.
func proxyTo(t *testing.T, change func(*httputil.ReverseProxy), targets ...http.Handler) *httptest.Server {
	t.Helper()
	var urls []*url.URL
	for _, h := range targets {
		s := httptest.NewServer(h)
		t.Cleanup(s.CloseClientConnections)
		u, _ := url.Parse(s.URL)
		urls = append(urls, u)
	}
	var turn atomic.Int64
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(urls[int(turn.Add(1))%len(urls)]) },
	}
	if change != nil {
		change(p)
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.CloseClientConnections)
	return s
}

// wrap puts f in front of the fake nodes' answers.
func wrap(h http.Handler, f func(w http.ResponseWriter, r *http.Request) http.ResponseWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w = f(w, r); w != nil {
			h.ServeHTTP(w, r)
		}
	})
}

// The doctor finds what is wrong with a set-up, says the cure, and says nothing wrong of
// one that is well.
func TestDoctor(t *testing.T) {
	t.Parallel()
	healthy := func(t *testing.T, nodes int) string {
		args := []string{"-listen", "127.0.0.1:0", "-affinity", "engineio,cookie", "-key", strings.Repeat("5eed", 16)}
		for i := range nodes {
			s := httptest.NewServer(&fakeNode{})
			t.Cleanup(s.CloseClientConnections)
			args = append(args, "-backend", fmt.Sprintf("node%d=%s", i, s.URL))
		}
		return "http://" + address(t, gateway(t, nil, args...))
	}
	for _, tt := range []struct {
		name   string
		setUp  func(t *testing.T) (url string)
		flags  []string
		status int
		says   []string // in the report
		wrongs int
	}{
		{"healthy", func(t *testing.T) string { return healthy(t, 3) }, nil, 0, []string{
			"speaks Engine.IO 4", "Clients without cookies stay", "Clients with cookies stay", "8 sessions from one address",
			"Connections are kept", "WebSockets pass", "Sessions move from polling", "A poll was held", "A WebSocket was held", "Nothing wrong",
		}, 0},
		{"round robin", func(t *testing.T) string { return proxyTo(t, nil, &fakeNode{}, &fakeNode{}).URL }, nil, 1, []string{
			"Clients without cookies don't stay", "affinity.EngineIO",
		}, 1},
		{"sticky by a cookie", func(t *testing.T) string {
			nodes := []http.Handler{&fakeNode{}, &fakeNode{}}
			var turn atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				i := int(turn.Add(1)) % 2
				if c, err := r.Cookie("node"); err == nil {
					i = int(c.Value[0] - '0')
				} else {
					http.SetCookie(w, &http.Cookie{Name: "node", Value: fmt.Sprint(i)})
				}
				nodes[i].ServeHTTP(w, r)
			}))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, nil, 1, []string{"Clients with cookies stay", "Clients without cookies don't stay"}, 1},
		{"Upgrade is dropped", func(t *testing.T) string {
			return proxyTo(t, func(p *httputil.ReverseProxy) {
				to := p.Rewrite
				p.Rewrite = func(r *httputil.ProxyRequest) {
					to(r)
					r.Out.Header.Del("Upgrade")
					r.Out.Header.Del("Connection")
				}
			}, &fakeNode{}).URL
		}, nil, 1, []string{"something in front drops Upgrade", "proxy_set_header Upgrade"}, 1},
		{"CORS twice", func(t *testing.T) string {
			s := httptest.NewServer(wrap(&fakeNode{}, func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				w.Header()["Access-Control-Allow-Origin"] = []string{"*", r.Header.Get("Origin")}
				return w
			}))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, nil, 1, []string{"Access-Control-Allow-Origin is there twice"}, 1},
		{"CORS of another origin", func(t *testing.T) string {
			s := httptest.NewServer(wrap(&fakeNode{}, func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				w.Header().Set("Access-Control-Allow-Origin", "https://other.example")
				return w
			}))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, []string{"-doctor-origin", "https://app.example"}, 1, []string{"only https://other.example may"}, 1},
		{"polls are cut off", func(t *testing.T) string {
			s := httptest.NewServer(http.TimeoutHandler(&fakeNode{}, 100*time.Millisecond, ""))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, nil, 1, []string{"A poll was cut off", "pingInterval"}, 2}, // and no WebSocket passes a TimeoutHandler
		{"orders to the terminal in a field", func(t *testing.T) string {
			s := httptest.NewServer(wrap(&fakeNode{}, func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				w.Header()["Access-Control-Allow-Origin"] = []string{"https://a", "\u009b2J"}
				return w
			}))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, []string{"-doctor-origin", "https://app.example"}, 1, []string{"is there twice"}, 1},
		{"connections aren't kept", func(t *testing.T) string {
			s := httptest.NewServer(wrap(&fakeNode{}, func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				w.Header().Set("Connection", "close")
				return w
			}))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, nil, 1, []string{"Each poll needs a new connection"}, 1},
		{"a Secure cookie over http", func(t *testing.T) string {
			s := httptest.NewServer(wrap(&fakeNode{}, func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				http.SetCookie(w, &http.Cookie{Name: "node", Value: "1", Secure: true})
				return w
			}))
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, nil, 1, []string{"The cookie node is Secure, but the site is http"}, 1},
		{"a certificate that nobody knows", func(t *testing.T) string {
			s := httptest.NewUnstartedServer(wrap(&fakeNode{}, func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				http.SetCookie(w, &http.Cookie{Name: "node", Value: "1"})
				return w
			}))
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.TLS = &tls.Config{}
			s.StartTLS()
			t.Cleanup(s.CloseClientConnections)
			return s.URL
		}, nil, 1, []string{"The certificate isn't valid", "isn't Secure, although the site is https", "Clients without cookies stay", "WebSockets pass"}, 1},
		{"no server behind the proxy", func(t *testing.T) string {
			return "http://" + address(t, gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", "a=http://127.0.0.1:1"))
		}, nil, 1, []string{"has no server that answers"}, 1},
		{"no Socket.IO", func(t *testing.T) string {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<h1>Hello\x1b[31m</h1>") }))
			t.Cleanup(s.Close)
			return s.URL
		}, nil, 2, []string{"can't tell", "no server of Socket.IO", "<h1>Hello"}, 0},
		{"another path", func(t *testing.T) string { return healthy(t, 1) + "/other/" }, nil, 2, []string{"can't tell", "another path"}, 0},
		{"a redirect", func(t *testing.T) string {
			s := httptest.NewServer(http.RedirectHandler("https://chat.example/socket.io/", http.StatusMovedPermanently))
			t.Cleanup(s.Close)
			return s.URL
		}, nil, 2, []string{"https://chat.example/socket.io/"}, 0},
		{"nobody there", func(*testing.T) string { return "http://127.0.0.1:1" }, nil, 2, []string{"can't tell", "can't be reached"}, 0},
		{"no URL", func(*testing.T) string { return "chat.example" }, nil, 2, []string{"want a URL"}, 0},
		{"held for too long", func(*testing.T) string { return "http://127.0.0.1:1" }, []string{"-doctor-hold", "50s"}, 2, []string{"at most 40s"}, 0},
		{"another flag", func(*testing.T) string { return "http://127.0.0.1:1" }, []string{"-listen", ":1"}, 2, []string{"no other flags"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			report, status := examined(t, tt.setUp(t), tt.flags...)
			for _, text := range tt.says {
				if !strings.Contains(report, text) {
					t.Errorf("it doesn't say %q", text)
				}
			}
			if n := strings.Count(report, "\nWRONG") + strings.Count(report[:min(5, len(report))], "WRONG"); status != tt.status || n != tt.wrongs || strings.Count(report, "Cure: ") != n {
				t.Errorf("exit status %d with %d mistakes, want %d with %d and a cure for each", status, n, tt.status, tt.wrongs)
			}
			if strings.ContainsAny(report, "\x1b\u009b") {
				t.Error("what a server has written reaches the terminal")
			}
			if t.Failed() {
				t.Log("\n" + report)
			}
		})
	}
}

// A proxy that holds the answers of polls back is found, if the server shows on a WebSocket
// that it has something to say.
func TestDoctorOfBuffering(t *testing.T) {
	t.Parallel()
	node := &fakeNode{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Get("sid") != "" && q.Get("transport") == "polling" && r.Method == "GET" {
			<-r.Context().Done()
			return
		}
		node.ServeHTTP(w, r)
	}))
	t.Cleanup(s.CloseClientConnections)
	var report strings.Builder
	d := doctor{hold: 300 * time.Millisecond, patience: 3 * time.Second}
	if err := d.examine(t.Context(), s.URL, &report); !errors.Is(err, errWrong) || d.wrongs != 1 || !strings.Contains(report.String(), "proxy_buffering off") {
		t.Errorf("%v\n%s", err, report.String())
	}
}

// Real servers of Socket.IO, behind our gateway and behind a proxy that isn't sticky.
func TestDoctorOfSocketIO(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version interop.Version
		speaks  string
	}{{interop.V4, "Engine.IO 4"}, {interop.V2, "Engine.IO 3"}} {
		t.Run(string(tt.version), func(t *testing.T) {
			t.Parallel()
			cluster := interop.Start(t, tt.version, 2)
			args := []string{"-listen", "127.0.0.1:0", "-affinity", "engineio,cookie", "-key", strings.Repeat("5eed", 16)}
			var turns []http.Handler
			for _, n := range cluster.Nodes {
				args = append(args, "-backend", n.Name+"="+n.URL())
				u, _ := url.Parse(n.URL())
				turns = append(turns, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }})
			}
			report, status := examined(t, "http://"+address(t, gateway(t, nil, args...)))
			if status != 0 || !strings.Contains(report, tt.speaks) || !strings.Contains(report, "A poll was held") {
				t.Errorf("of our gateway: status %d\n%s", status, report)
			}
			report, status = examined(t, proxyTo(t, nil, turns...).URL)
			if status != 1 || !strings.Contains(report, "Clients without cookies don't stay") {
				t.Errorf("of a proxy that isn't sticky: status %d\n%s", status, report)
			}
		})
	}
}

// Without the flag the gateway is a gateway.
func TestDoctorIsNotAsked(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"-listen", "doctor"}, {"-backend", "doctor=http://a"}} {
		if _, asked := doctorMain(t.Context(), args, io.Discard); asked {
			t.Errorf("%q asks for the doctor", args)
		}
	}
}
