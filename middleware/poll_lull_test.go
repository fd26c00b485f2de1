package middleware_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// An echoNode has sessions that poll. Each message is answered by a poll, after 20 to 100 ms.
// Sessions with an odd number get other messages meanwhile.
type echoNode struct {
	name     string // begins its sessions' IDs
	mu       sync.Mutex
	sessions map[string]*echoSession
}

type echoSession struct {
	pushes  bool
	answers chan string
	ended   chan struct{}
}

func (n *echoNode) session(sid string) *echoSession {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[sid]
}

func (n *echoNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sid := r.URL.Query().Get("sid")
	if sid == "" {
		n.mu.Lock()
		defer n.mu.Unlock()
		sid = fmt.Sprint(n.name, "s", len(n.sessions))
		n.sessions[sid] = &echoSession{len(n.sessions)%2 == 1, make(chan string, 1000), make(chan struct{})}
		io.WriteString(w, `0{"sid":"`+sid+`"}`)
		return
	}
	s := n.session(sid)
	if s == nil {
		http.Error(w, `{"code":1,"message":"Session ID unknown"}`, 400)
		return
	}
	if r.Method == "POST" {
		body, _ := io.ReadAll(r.Body)
		if string(body) == "1" {
			n.mu.Lock()
			n.sessions[sid] = nil
			n.mu.Unlock()
			close(s.ended)
		} else {
			time.AfterFunc(20*time.Millisecond+rand.N(80*time.Millisecond), func() { s.answers <- string(body) })
		}
		io.WriteString(w, "ok")
		return
	}
	var push <-chan time.Time
	if s.pushes {
		push = time.After(100 * time.Millisecond)
	}
	select {
	case answer := <-s.answers:
		io.WriteString(w, answer)
	case <-s.ended:
		io.WriteString(w, "6")
	case <-push:
		io.WriteString(w, "4push")
	case <-r.Context().Done():
	}
}

// What clients that poll have posted before their session ended is answered when their node
// is drained, but for those whose turn comes in the last second of the drain. Each POST that
// is answered with 200 counts.
func TestDrainAnswersPolls(t *testing.T) {
	t.Parallel()
	const within = 3 * time.Second
	nodes := make(map[string]*node)
	for _, id := range []string{"a", "b"} {
		nodes[id] = newNode(t, id, &echoNode{sessions: make(map[string]*echoSession)})
	}
	pool := poolOf(t, nil, nodes)
	if err := pool.Drain("b", 0); err != nil {
		t.Fatal(err)
	}
	srv, gw := serve(t, pool, &limpet.Options{Affinity: affinity.Chain{engineIO(), &affinity.Cookie{Secrets: testKeys}}})
	keys := make(chan string, 1)
	stop := gw.Observe(limpet.Observer{Request: func(rec *limpet.Record) { keys <- rec.Key }})
	var all sync.WaitGroup
	begin := make(chan struct{})
	drained := make(chan time.Time)
	for i := range 40 {
		c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", http.Header{}}
		sid := c.open(t)
		inTime := balancer.Turn(<-keys) <= float64(within-time.Second)/float64(within)
		asks := i%2 == 0 // one question after the other, or a message now and then
		all.Go(func() {
			<-begin
			over, answered := make(chan struct{}), make(chan string, 1000)
			var poll sync.WaitGroup
			poll.Go(func() {
				defer close(over)
				for {
					status, answer := c.do(t, "GET", sid, "")
					if status != 200 {
						if !strings.Contains(answer, "Session ID unknown") {
							t.Errorf("a poll got %d %q", status, answer)
						}
						return
					}
					if answer != "6" && answer != "4push" {
						answered <- answer
					}
				}
			})
			posted := make(map[string]time.Time)
			missing := make(map[string]bool)
			for n := 0; ; n++ {
				pause := 700*time.Millisecond + rand.N(800*time.Millisecond)
				if asks {
					pause = 50*time.Millisecond + rand.N(300*time.Millisecond)
				}
				select {
				case <-over:
				case <-time.After(pause):
				}
				m := fmt.Sprint("4", n)
				at := time.Now()
				if status, _ := c.do(t, "POST", sid, m); status != 200 {
					break
				}
				posted[m], missing[m] = at, true
				if asks {
					select {
					case got := <-answered:
						delete(missing, got)
					case <-over:
					}
				}
			}
			poll.Wait()
			ended := time.Now()
			close(answered)
			for m := range answered {
				delete(missing, m)
			}
			if end := (<-drained).Add(within); ended.After(end.Add(patience / 4)) {
				t.Errorf("client %d left %v behind the end of the drain", i, ended.Sub(end))
			}
			if !inTime {
				return
			}
			for m := range missing {
				t.Errorf("client %d: %s was posted %v before the session's end, and wasn't answered", i, m, ended.Sub(posted[m]))
			}
			if len(posted) == 0 {
				t.Errorf("client %d posted nothing", i)
			}
		})
	}
	stop()
	close(begin)
	time.Sleep(1500 * time.Millisecond) // of talk
	began := time.Now()
	if err := pool.Drain("a", within); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 40 {
			drained <- began
		}
	}()
	if err := pool.Undrain("b"); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

// What a client that polls has posted before it is moved is answered.
func TestMovedPollIsAnswered(t *testing.T) {
	t.Parallel()
	nodes := make(map[string]*node)
	for _, id := range []string{"a", "b"} {
		nodes[id] = newNode(t, id, &echoNode{name: id, sessions: make(map[string]*echoSession)})
	}
	srv, gw := serve(t, poolOf(t, nil, nodes), &limpet.Options{Affinity: affinity.Chain{engineIO(), &affinity.Cookie{Secrets: testKeys}}})
	opened := make(chan [2]string, 1) // the client's key and its home
	stop := gw.Observe(limpet.Observer{Request: func(rec *limpet.Record) { opened <- [2]string{rec.Key, rec.Backend.ID()} }})
	type session struct {
		client         *pollClient
		sid, key, home string
	}
	var sessions []session
	for range 20 {
		c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", http.Header{}}
		sid := c.open(t)
		at := <-opened
		sessions = append(sessions, session{c, sid, at[0], at[1]})
	}
	stop()
	var all sync.WaitGroup
	for _, s := range sessions {
		all.Go(func() {
			if status, _ := s.client.do(t, "POST", s.sid, "4question"); status != 200 {
				t.Errorf("the message got %d", status)
			}
			ok(t, gw.MovePin(t.Context(), s.key, map[string]string{"a": "b", "b": "a"}[s.home]))
			answered := false
			for {
				status, answer := s.client.do(t, "GET", s.sid, "")
				if status != 200 {
					break
				}
				answered = answered || answer == "4question"
			}
			if !answered {
				t.Error("the session was ended before the message was answered")
			}
		})
	}
	all.Wait()
}

// A message whose client may stay at its node for a moment is answered by the gateway when it
// waits for room there until the end of the drain: no other node knows its session.
func TestQueuedMessageStaysNoLongerThanTheDrain(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Second
	nodes := map[string]*node{
		"a": newNode(t, "a", &echoNode{sessions: make(map[string]*echoSession)}),
		"b": newNode(t, "b", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s is at another node", r.Method, r.URL) })),
	}
	pool := poolOf(t, &balancer.Options{Limit: &balancer.Limit{Requests: 1, Queue: 1}}, nodes)
	ok(t, pool.Off("b"))
	srv, gw := serve(t, pool, &limpet.Options{Affinity: engineIO()})
	keys := make(chan string, 1)
	stop := gw.Observe(limpet.Observer{Request: func(rec *limpet.Record) { keys <- rec.Key }})
	c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", http.Header{}}
	var sid, key string
	for sid == "" || balancer.Turn(key) > 0.2 {
		sid = c.open(t)
		key = <-keys
	}
	stop()
	if status, answer := c.do(t, "POST", sid, "4first"); status != 200 {
		t.Fatalf("the first one got %d %q", status, answer)
	}
	ok(t, pool.Undrain("b"))
	ok(t, pool.Drain("a", within))
	a := pool.Get("a")
	a.Begin()
	defer a.End()
	until(t, "its turn has come", func() bool { return !a.Keeps(key) })
	if a.State() != balancer.Draining {
		t.Fatal("the drain was over before the message could be posted")
	}
	if status, answer := c.do(t, "POST", sid, "4second"); status != 400 || !strings.Contains(answer, "Session ID unknown") {
		t.Errorf("it got %d %q", status, answer)
	}
}
