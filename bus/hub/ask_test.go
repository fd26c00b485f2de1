package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// serveRoom serves a hub whose clients say in the URL who they are, and are in "room".
func serveRoom(t *testing.T, h *hub.Hub) *httptest.Server {
	return serveHub(t, h, &hub.HandlerOptions{
		Member: func(r *http.Request) (hub.MemberOptions, error) {
			return hub.MemberOptions{ID: r.URL.Path[1:], Rooms: []string{"room"}}, nil
		},
		Message:  func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
		Compress: true,
	})
}

// An answerer is a client that speaks the hub's protocol and says that it answers.
type answerer struct {
	t *testing.T
	*websocket.Conn
}

// answering opens such a client, and waits until it is in its room.
func answering(t *testing.T, s *httptest.Server, id string) answerer {
	t.Helper()
	return speaking(t, s, id, `{"positions":{},"answers":true}`)
}

// speaking opens a client with a first message.
func speaking(t *testing.T, s *httptest.Server, id, first string) answerer {
	t.Helper()
	c, _, err := websocket.Dial(patient(t), s.URL+"/"+id, &websocket.DialOptions{Subprotocols: []string{hub.Protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	a := answerer{t, c}
	a.say(first)
	for !strings.Contains(read(t, c), `"joined":"room"`) {
	}
	return a
}

func (a answerer) say(text string) {
	a.t.Helper()
	if err := a.Write(patient(a.t), websocket.MessageText, []byte(text)); err != nil {
		a.t.Error(err)
	}
}

// asked waits for a question, and returns its number and text.
func (a answerer) asked() (number int, question string) {
	a.t.Helper()
	for {
		head, rest, _ := strings.Cut(strings.TrimPrefix(read(a.t, a.Conn), "Text "), "\n")
		var line struct{ Ask int }
		if err := json.Unmarshal([]byte(head), &line); err != nil {
			a.t.Error(err)
		}
		if line.Ask != 0 {
			return line.Ask, rest
		}
	}
}

// answers answers the next question.
func (a answerer) answers(with string) {
	a.t.Helper()
	n, question := a.asked()
	a.say(fmt.Sprintf("{\"answer\":%d}\n%s to %s", n, with, question))
}

// told returns replies as "member: what", sorted.
func told(replies []hub.Reply) string {
	var all []string
	for _, r := range replies {
		all = append(all, r.Member+": "+strings.TrimPrefix(said(r), "hub: "))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// replies are what Ask returns.
type replies struct {
	list []hub.Reply
	err  error
}

// begin asks in the background.
func begin(ctx context.Context, h *hub.Hub, who hub.Who) <-chan replies {
	c := make(chan replies, 1)
	go func() { // ends with ctx
		list, err := h.Ask(ctx, who, hub.Text([]byte("ready?")))
		c <- replies{list, err}
	}()
	return c
}

// Members on three nodes are asked, and each of them replies: with an answer, an error, or
// nothing, or it can't.
func TestHubAsk(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	opts := &hub.Options{Timeout: time.Minute}
	near, far, further := startHub(t, memory, opts), startHub(t, memory, opts), startHub(t, memory, opts)
	await(t, "the nodes", func() bool { return near.Stats().Nodes == 3 })
	s, s2 := serveRoom(t, near), serveRoom(t, far)
	ann, bob, cid := answering(t, s, "ann"), answering(t, s2, "bob"), answering(t, s2, "cid")
	speaking(t, s2, "dan", `{"positions":{}}`)
	connect(t, further, "eve", "room")
	const cant = `can't answer: its client doesn't speak limpet.v1, or doesn't say that it answers`

	t.Run("a room", func(t *testing.T) {
		got := begin(t.Context(), near, inRooms("room"))
		ann.answers("yes")
		n, _ := bob.asked()
		bob.say(fmt.Sprintf(`{"answer":%d,"error":"busy"}`, n))
		cid.answers("no")
		want := `ann: yes to ready?; bob: member "bob" answers with an error: busy; cid: no to ready?; dan: member "dan" ` + cant + `; eve: member "eve" ` + cant
		if r := <-got; r.err != nil || told(r.list) != want {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
	})
	t.Run("one, by ID", func(t *testing.T) {
		got := begin(t.Context(), near, hub.Who{IDs: []string{"bob"}})
		bob.answers("yes")
		if r := <-got; r.err != nil || told(r.list) != "bob: yes to ready?" || r.list[0].Node != far.ID() {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
	})
	t.Run("those of this node but one", func(t *testing.T) {
		got := begin(t.Context(), near, hub.Who{All: true, Local: true, ExceptIDs: []string{"bob"}})
		ann.answers("yes")
		if r := <-got; r.err != nil || told(r.list) != "ann: yes to ready?" {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		for _, who := range []hub.Who{{}, {IDs: []string{"nobody"}}} {
			if r := <-begin(t.Context(), near, who); r.err != nil || len(r.list) != 0 {
				t.Errorf("got %s, %v", told(r.list), r.err)
			}
		}
	})
	t.Run("those who are late", func(t *testing.T) {
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := begin(brief, near, hub.Who{IDs: []string{"ann", "bob", "cid"}})
		bob.answers("yes")
		if r := <-got; r.err != nil || told(r.list) != "ann: late; bob: yes to ready?; cid: late" {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
		// What they answer now is ignored, and so is what nobody has asked.
		ann.answers("at last")
		cid.answers("at last")
	})
	t.Run("answers to nothing", func(t *testing.T) {
		got := begin(t.Context(), near, hub.Who{IDs: []string{"ann"}})
		n, _ := ann.asked()
		bob.say(fmt.Sprintf("{\"answer\":%d}\nof another", n))
		for _, number := range []string{"12345", "18446744073709551615", fmt.Sprint(n - 1)} {
			ann.say("{\"answer\":" + number + "}\nmade up")
		}
		ann.say(fmt.Sprintf("{\"answer\":%d}\nonce", n))
		ann.say(fmt.Sprintf("{\"answer\":%d}\ntwice", n))
		if r := <-got; told(r.list) != "ann: once" {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
		ann.say("{}\nstill a message")
		if got := read(t, ann.Conn); got != "Text {}\nstill a message" {
			t.Errorf("then got %q", got)
		}
	})
	t.Run("one who leaves", func(t *testing.T) {
		got := begin(t.Context(), near, inRooms("room"))
		for _, a := range []answerer{ann, bob} {
			a.answers("yes")
		}
		cid.asked()
		cid.CloseNow()
		if r := <-got; r.err != nil || !strings.Contains(told(r.list), `ann: yes to ready?; bob: yes to ready?; cid: member "cid" has left; dan`) {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
	})
	t.Run("too many", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var open []<-chan replies
		for range 64 {
			open = append(open, begin(ctx, far, hub.Who{IDs: []string{"ann"}}))
			ann.asked()
		}
		if r := <-begin(t.Context(), near, hub.Who{IDs: []string{"ann"}}); told(r.list) != `ann: member "ann" isn't asked: it has 64 open questions` {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
		cancel()
		for _, c := range open {
			if r := <-c; told(r.list) != ": canceled" { // the node that has asked her
				t.Errorf("got %s, %v", told(r.list), r.err)
			}
		}
	})
}

// A node that dies while its members are asked is told of as soon as it is forgotten, and one that
// ends while they are asked tells so itself.
func TestHubAskDeadNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		near := startHub(t, memory, nil)
		dying := &single{Bus: memory}
		far := startHub(t, dying, nil)
		ends := newHub(t, memory, nil)
		stop := runHub(t, ends)
		open := func(h *hub.Hub) answerer {
			l := servePipes(t, h)
			c, _, err := websocket.Dial(t.Context(), "http://hub", &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: &http.Transport{DialContext: l.dial}}, Subprotocols: []string{hub.Protocol},
			})
			if err != nil {
				t.Fatal(err)
			}
			a := answerer{t, c}
			a.say(`{"positions":{},"answers":true}`)
			return a
		}
		one, other := open(far), open(ends)
		defer one.CloseNow()
		defer other.CloseNow()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		got := begin(ctx, near, hub.Who{All: true})
		one.asked()
		other.asked()
		other.CloseRead(ctx) // answers the close frame
		stop()
		dying.mute.Store(true)
		r := <-got
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		slices.SortFunc(r.list, func(a, b hub.Reply) int { return strings.Compare(a.Member, b.Member) })
		if r.err != nil || len(r.list) != 2 || r.list[0].Node != far.ID() || told(r.list[:1]) != ": node it has left" ||
			!strings.HasSuffix(told(r.list[1:]), "has left") {
			t.Errorf("got %s, %v", told(r.list), r.err)
		}
	})
}

// A bus that is away is an error; the members of this node are asked all the same.
func TestHubAskBusAway(t *testing.T) {
	t.Parallel()
	b := &faulty{}
	h := startHub(t, b, nil)
	ann := answering(t, serveRoom(t, h), "ann")
	b.set(func() { b.away = true })
	got := begin(patient(t), h, hub.Who{All: true})
	ann.answers("yes")
	if r := <-got; !errors.Is(r.err, errAway) || told(r.list) != "ann: yes to ready?" {
		t.Errorf("got %s, %v", told(r.list), r.err)
	}
}

// A member is asked by itself. One whose client breaks the protocol is closed.
func TestMemberAsk(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{Timeout: time.Minute})
	s := serveRoom(t, h)
	ann := answering(t, s, "ann")
	var m *hub.Member
	for m = range h.Local(hub.Who{IDs: []string{"ann"}}) {
	}
	ask := func() <-chan string {
		c := make(chan string, 1)
		go func() { // ends with the answer
			data, err := m.Ask(patient(t), hub.Text([]byte("ready?")))
			c <- fmt.Sprintf("%s %v", data, err)
		}()
		return c
	}
	got := ask()
	ann.answers("yes")
	if got := <-got; got != "yes to ready? <nil>" {
		t.Errorf("got %s", got)
	}
	got = ask()
	ann.asked()
	ann.say("no line")
	if code, _ := ends(t, ann.Conn); code != websocket.StatusPolicyViolation {
		t.Errorf("closed with %d", code)
	}
	for range 2 { // and asked again
		if got := <-got; got != ` hub: member "ann" has left` {
			t.Errorf("got %s", got)
		}
		got = ask()
	}
}
