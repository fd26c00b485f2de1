package hub_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/browser"
	"github.com/limpet-go/limpet/internal/process"
)

// The JavaScript client answers what another node asks, says why it doesn't, and sends messages
// of all kinds as before.
func answersQuestions(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	memory := &bus.Memory{}
	opts := &hub.Options{Timeout: process.Patience}
	here, there := startHub(t, memory, opts), startHub(t, memory, opts)
	await(t, "the nodes", func() bool { return there.Stats().Nodes == 2 })
	handler := here.Handler(&hub.HandlerOptions{
		Member:  func(*http.Request) (hub.MemberOptions, error) { return hub.MemberOptions{Rooms: []string{"room"}}, nil },
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	})
	s.current.Store(&handler)
	p := chromium.Open(t, s.URL)
	p.Read(t, "the room", `told('joined', 'room')`)

	ask := func(question *hub.Frame) string {
		t.Helper()
		list, err := there.Ask(context.Background(), inRooms("room"), question)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if err := list[0].Err; err != nil {
			return fmt.Sprintf("error of %d", len(list[0].Data)) + err.Error()[len(fmt.Sprintf("hub: member %q", list[0].Member)):]
		}
		return string(list[0].Data)
	}
	for _, tt := range []struct{ onask, want string }{
		{"undefined", "error of 0 answers with an error: Error: the client has no onask"},
		{"async (question) => `${question}, yés\n`", "ready?, yés\n"},
		{"() => new Uint8Array([255, 10, 0])", "\xff\n\x00"},
		{"async () => new Uint8Array([1, 2, 3]).subarray(1).buffer.slice(1)", "\x02\x03"},
		{"() => new Blob(['blob'])", "blob"},
		{"() => {}", ""},
		{"() => { throw new Error('busy') }", "error of 0 answers with an error: Error: busy"},
		{"() => Promise.reject('no')", "error of 0 answers with an error: no"},
	} {
		p.Run(t, "onask", "limpet.onask = "+tt.onask)
		if got := ask(hub.Text([]byte("ready?"))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.onask, got, tt.want)
		}
	}
	p.Run(t, "onask", "limpet.onask = (question) => question")
	bytes := []byte{10, 255, 0}
	if got := ask(hub.Binary(bytes)); !slices.Equal([]byte(got), bytes) {
		t.Errorf("bytes became %q", got)
	}
	p.Read(t, "no message of these", `!log.some((e) => e.type === 'message')`)
	p.Run(t, "send", `limpet.send('{}'); limpet.send(new Uint16Array([2570]).buffer); limpet.send(new Blob(['{"answer":1}\n']))`)
	p.Read(t, "the answers", `heard(undefined).length === 3 && heard(undefined)[0] === '{}' &&
		String(heard(undefined)[1]) === '10,10' && new TextDecoder().decode(heard(undefined)[2]) === '{"answer":1}\n'`)
}
