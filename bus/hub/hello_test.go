package hub_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// dialPlaced opens a WebSocket that speaks hub.Protocol, and sends its first messages.
func dialPlaced(t *testing.T, s *httptest.Server, first ...string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(patient(t), s.URL, &websocket.DialOptions{Subprotocols: []string{"a", hub.Protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	if c.Subprotocol() != hub.Protocol {
		t.Errorf("the server speaks %q", c.Subprotocol())
	}
	for _, text := range first {
		if err := c.Write(patient(t), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// lines reads until a message comes that begins with last, and returns all without the
// values of positions.
func lines(t *testing.T, c *websocket.Conn, last string) (got []string) {
	t.Helper()
	for {
		_, b, err := c.Read(patient(t))
		if err != nil {
			t.Fatalf("behind %q: %v", got, err)
		}
		text := string(b)
		if before, after, ok := strings.Cut(text, `"id":"`); ok {
			_, after, _ = strings.Cut(after, `"`)
			text = before + `"id":""` + after
		}
		if got = append(got, text); strings.HasPrefix(text, last) {
			return got
		}
	}
}

// A WebSocket that speaks the protocol and one that doesn't are in the same room.
func TestHandlerProtocol(t *testing.T) {
	t.Parallel()
	h := startHub(t, &bus.Memory{History: 100}, &hub.Options{Recover: 100})
	said := make(chan string, 10)
	s := serveHub(t, h, &hub.HandlerOptions{
		Subprotocols: []string{"a"},
		Member: func(*http.Request) (hub.MemberOptions, error) {
			return hub.MemberOptions{ID: "id", Rooms: []string{"room"}}, nil
		},
		Opened: func(ctx context.Context, m *hub.Member, _ *http.Request) {
			if err := m.Join(ctx, "more"); err != nil {
				t.Error(err)
			}
			m.Send(hub.Text([]byte("hello")))
		},
		Message: func(_ context.Context, _ *hub.Member, f *hub.Frame) { said <- string(f.Payload()) },
	})
	plain := dial(t, s, "", nil)
	if plain.Subprotocol() != "a" {
		t.Errorf("the other speaks %q", plain.Subprotocol())
	}
	lines(t, plain, "hello") // it is a member
	c := dialPlaced(t, s, `{"positions":{"no":"1-1"},"new":1}`, `{"positions":{}}`, "two")
	got := lines(t, c, `{"left"`)
	slices.Sort(got)
	want := []string{`{"alive":25,"answers":true}`, `{"joined":"more","id":""}`, `{"joined":"room","id":""}`, `{"left":"no"}`, "{}\nhello"}
	wantEqual(t, "at first", got, want)
	for _, want := range []string{`{"positions":{}}`, "two"} {
		if got := <-said; got != want {
			t.Errorf("the application has got %q, want %q", got, want)
		}
	}
	send(t, h, inRooms("room"), "one\ntwo")
	send(t, h, hub.Who{All: true}, "all")
	got = append(lines(t, c, "{"), lines(t, c, "{")...)
	slices.Sort(got)
	wantEqual(t, "then", got, []string{"{\"room\":\"room\",\"id\":\"\"}\none\ntwo", "{}\nall"})
	got = append(lines(t, plain, ""), lines(t, plain, "")...)
	slices.Sort(got)
	wantEqual(t, "the other", got, []string{"all", "one\ntwo"})
	c.Close(4000, "bye")
	dialPlaced(t, s, `{"positions":{"room":"0-0"}}`).Close(1000, "") // may be in the same packet
}

// A client whose first message isn't of the protocol, or doesn't come, is closed.
func TestHandlerHello(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{Recover: 10, WriteTimeout: 2 * time.Second})
	s := serveHub(t, h, &hub.HandlerOptions{ReadLimit: 1000, Opened: func(context.Context, *hub.Member, *http.Request) {
		t.Error("it is a member")
	}})
	for _, tt := range []struct {
		name, first string
		code        websocket.StatusCode
	}{
		{"no JSON", "hello", 1008},
		{"no object", "[]", 1008},
		{"no positions", "{}", 1008},
		{"null", `{"positions":null}`, 1008},
		{"numbers", `{"positions":{"room":1}}`, 1008},
		{"too big", `{"positions":{"` + strings.Repeat("x", 1000) + `":""}}`, 1009},
		{"no UTF-8", `{"positions":{"` + "\xff" + `":""}}`, 1007},
		{"nothing", "", 1008},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var first []string
			if tt.first != "" {
				first = append(first, tt.first)
			}
			c := dialPlaced(t, s, first...)
			if _, _, err := c.Read(patient(t)); websocket.CloseStatus(err) != tt.code {
				t.Errorf("closed with %v, want %d", err, tt.code)
			}
		})
	}
	t.Run("goes at once", func(t *testing.T) {
		t.Parallel()
		if err := dialPlaced(t, s).Close(4000, ""); err != nil {
			t.Error(err)
		}
	})
}

// Without Recover a client knows its rooms, and hears that messages are missing.
func TestHandlerNoRecover(t *testing.T) {
	t.Parallel()
	b := &leaky{}
	h := startHub(t, b, &hub.Options{Gap: func(hub.Who, *bus.Gap) {}})
	s := serveHub(t, h, &hub.HandlerOptions{Member: func(*http.Request) (hub.MemberOptions, error) {
		return hub.MemberOptions{Rooms: []string{"room"}}, nil
	}})
	c := dialPlaced(t, s, `{"positions":{"room":"1-1"}}`)
	lines(t, c, `{"joined"`)
	sender := startHub(t, b, nil) // it has no members
	for range 300 {
		send(t, sender, inRooms("room"), "x")
	}
	for _, text := range lines(t, c, `{"missed":"room"}`) {
		if !slices.Contains([]string{`{"missed":"room"}`, "{\"room\":\"room\"}\nx", `{"alive":25,"answers":true}`}, text) {
			t.Errorf("told %q", text)
		}
	}
}

// A client that is gone when Opened returns isn't told of anything any more.
func TestHandlerProtocolGone(t *testing.T) {
	t.Parallel()
	h := startHub(t, &bus.Memory{History: 10}, &hub.Options{Recover: 10})
	returned := make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Handler(&hub.HandlerOptions{Opened: func(ctx context.Context, m *hub.Member, _ *http.Request) {
			m.Close(4000, "")
			<-ctx.Done() // its connection is closed
		}}).ServeHTTP(w, r)
		close(returned)
	}))
	t.Cleanup(s.Close)
	c := dialPlaced(t, s, `{"positions":{"no":"1-1"}}`)
	for {
		if _, _, err := c.Read(patient(t)); err != nil {
			if code := websocket.CloseStatus(err); code != 4000 {
				t.Errorf("closed with %d, %v", code, err)
			}
			break
		}
	}
	<-returned
}
