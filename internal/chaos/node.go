//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// The fields of a node's answers that say who has answered.
const (
	fieldBackend = "Chaos-Backend"
	fieldBoot    = "Chaos-Boot"
)

// nodeSettings are what a node's process is told.
type nodeSettings struct {
	ID   string
	Boot string // the ID and how often the node was started
}

// A nodeEvent is a line that a node's process prints.
type nodeEvent struct {
	Addr   string `json:",omitempty"` // where it serves
	Client string `json:",omitempty"` // with N: executed a POST of this client
	N      int    `json:",omitempty"`
}

// A node is a backend: a server of plain requests, and of sessions as Engine.IO has them.
type node struct {
	nodeSettings
	sessions sessions
}

// runNode is the main function of a node's process.
func runNode(s nodeSettings) error {
	n := &node{nodeSettings: s}
	l, err := listenLoopback()
	if err != nil {
		return err
	}
	n.print(nodeEvent{Addr: l.Addr().String()})
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /plain", n.get)
	mux.HandleFunc("POST /plain", n.post)
	mux.HandleFunc("/socket.io/", n.engine)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(fieldBackend, n.ID)
		w.Header().Set(fieldBoot, n.Boot)
		mux.ServeHTTP(w, r)
	})}
	return server.Serve(l)
}

// print writes an event by one call, so that all of it is there after a SIGKILL.
func (n *node) print(e nodeEvent) {
	line, _ := json.Marshal(e)
	os.Stdout.Write(append(line, '\n'))
}

// get answers with a text that is long enough to be cut in two.
func (n *node) get(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Duration(atoi(r.FormValue("n"))%20) * time.Millisecond)
	io.WriteString(w, page(r.FormValue("n")))
}

func page(n string) string { return strings.Repeat(n+" ", 400) }

// post tells that it has executed a request before it answers, and takes so long that
// faults come in between.
func (n *node) post(w http.ResponseWriter, r *http.Request) {
	number := atoi(r.FormValue("n"))
	n.print(nodeEvent{Client: r.FormValue("client"), N: number})
	time.Sleep(time.Duration(20+number%10*8) * time.Millisecond)
	fmt.Fprint(w, number)
}

// engine serves Engine.IO as far as the clients of this package speak it.
func (n *node) engine(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	version, sid := q.Get("EIO"), q.Get("sid")
	switch {
	case q.Get("transport") == "websocket":
		n.socket(w, r)
	case sid == "":
		s := n.sessions.open(version)
		io.WriteString(w, encodePackets(version, []string{s.opening(n.Boot)}))
	default:
		n.poll(w, r, n.sessions.get(sid))
	}
}

// poll serves a request of a session that polls. A session that isn't there is answered
// as Engine.IO does.
func (n *node) poll(w http.ResponseWriter, r *http.Request, s *session) {
	if s == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"code":1,"message":"Session ID unknown"}`)
		return
	}
	if r.Method == http.MethodGet {
		packets, ok := s.take(r.Context())
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		io.WriteString(w, encodePackets(s.version, packets))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its client broke off: nothing of it is executed
	}
	for _, p := range decodePackets(s.version, string(body)) {
		if p == "1" {
			n.sessions.end(s)
			continue
		}
		if number, ok := strings.CutPrefix(p, "4"); ok {
			s.push(s.echo(number))
		}
	}
	io.WriteString(w, "ok")
}

// socket serves a session that is a WebSocket from its beginning.
func (n *node) socket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := context.Background() // the request's has ended with the hijacking
	s := newSession("4")
	if conn.Write(ctx, websocket.MessageText, []byte(s.opening(n.Boot))) != nil {
		return
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		number, _ := strings.CutPrefix(string(data), "4")
		if conn.Write(ctx, websocket.MessageText, []byte(s.echo(number))) != nil {
			return
		}
	}
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
