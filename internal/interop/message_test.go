package interop_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
)

// What clients say passes unchanged and reaches those on other nodes, on all
// transports at once.
func TestMessages(t *testing.T) {
	each(t, func(t *testing.T, v interop.Version) {
		s := connect(t, interop.Start(t, v, 3), 12, nil)

		t.Run("acknowledgements", func(t *testing.T) {
			said := map[string]any{"text": "Grüße, 世界 \u2028 🐚", "list": []any{1.5, nil, true, ""}}
			for name, answer := range s.Ask(t, s.names, "echo", said) {
				if !reflect.DeepEqual(answer, said) {
					t.Errorf("%s sent %v and got %v", name, said, answer)
				}
			}
		})
		t.Run("1 MiB of binary there and back", func(t *testing.T) {
			s.Bytes(t, s.names, 1<<20)
		})
		t.Run("across nodes", func(t *testing.T) {
			home, socket := homes(s.Events("connect")), make(map[string]string)
			for _, e := range s.Events("connect") {
				socket[e.Client] = e.Socket
			}
			talker, members := strangers(s.names, home)
			if talker == "" {
				t.Fatalf("each node has all clients of a transport: %v", home)
			}
			s.Ask(t, members, "join", "blue")

			s.Tell(t, talker, "message", "blue", "to the room")
			for _, m := range members {
				s.Tell(t, talker, "privateMessage", socket[m], "to "+m)
			}
			// The last of all: who has got it has got all that came before.
			s.Tell(t, talker, "broadcast", "to everyone")
			s.Await(t, "the broadcast at every client", func(events []interop.Event) bool {
				n := 0
				for _, e := range events {
					if e.Kind == "broadcast" {
						n++
					}
				}
				return n == len(s.names)
			})

			var got, want []string
			for _, e := range s.Events("message") {
				got = append(got, fmt.Sprintf("%s: %s %s", e.Client, e.Kind, e.Text))
			}
			for _, name := range s.names {
				want = append(want, name+": broadcast to everyone")
			}
			for _, m := range members {
				want = append(want, m+": message to the room", m+": privateMessage to "+m)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
		})
	})
}

// strangers returns a client, and one client of each transport that isn't on its
// node.
func strangers(names []string, home map[string]string) (talker string, members []string) {
	for _, talker := range names {
		elsewhere := make(map[string]string) // by the transports, joined
		for i, name := range names {
			if home[name] != home[talker] {
				elsewhere[strings.Join(transportsOf(i), " ")] = name
			}
		}
		if len(elsewhere) == len(transports) {
			return talker, slices.Collect(maps.Values(elsewhere))
		}
	}
	return "", nil
}
