package interop_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/browser"
	"github.com/limpet-go/limpet/internal/interop"
)

// Visitors with a real cookie jar, and the one transport that only a browser has:
// JSONP, of 2.x.
func TestBrowsersStay(t *testing.T) {
	each(t, func(t *testing.T, v interop.Version) {
		chromium := browser.Start(t)
		cluster := interop.Start(t, v, 3)
		gateway := interop.StartGateway(t, cluster)
		tests := []struct {
			name    string
			options string
			sign    string // JavaScript: what tells that the transport is the one meant
			only    interop.Version
		}{
			{name: "polling", options: `{transports: ['polling']}`, sign: `socket.io.engine.transport.name == 'polling'`},
			{name: "polling then upgrade", options: `{}`, sign: `socket.io.engine.transport.name == 'websocket'`},
			{
				name:    "JSONP",
				options: `{transports: ['polling'], forceJSONP: true}`,
				sign:    `performance.getEntriesByType('resource').some((e) => e.name.includes('&j=0'))`,
				only:    interop.V2,
			},
		}
		for _, tt := range tests {
			if tt.only != "" && tt.only != v {
				continue
			}
			t.Run(tt.name, func(t *testing.T) {
				pages := make([]*browser.Page, 6)
				var nodes []string
				for i := range pages {
					p := chromium.Open(t, gateway.URL)
					p.Run(t, "connect", fmt.Sprintf(`
						window.heard = [];
						window.moves = [];
						window.socket = io(Object.assign(%s, {query: {client: 'page%d'}}));
						socket.on('connect', () => socket.emit('who', (node) => moves.push(node)));
						socket.on('disconnect', (reason) => moves.push(reason));
						socket.on('broadcast', (text) => heard.push(text));`, tt.options, i))
					pages[i] = p
					nodes = append(nodes, p.Read(t, "its node", `moves[0]`))
				}
				slices.Sort(nodes)
				if len(slices.Compact(nodes)) != 3 {
					t.Errorf("pages by node: %v", nodes)
				}
				for _, p := range pages {
					p.Read(t, "its transport", tt.sign+` && 'yes'`)
				}
				// Binary there and back.
				for _, p := range pages {
					p.Run(t, "send bytes", `
						window.echo = '';
						const sent = crypto.getRandomValues(new Uint8Array(1 << 16));
						socket.emit('echo', sent.buffer, (got) => {
							got = new Uint8Array(got);
							echo = got.length == sent.length && got.every((b, i) => b == sent[i]) ? 'same' : 'changed';
						});`)
					if echo := p.Read(t, "the echo", `echo`); echo != "same" {
						t.Errorf("64 KiB came back %s", echo)
					}
				}
				pages[0].Run(t, "talk", `socket.emit('broadcast', 'ahoy "there"\n')`)
				for i, p := range pages {
					if got := p.Read(t, "the broadcast", `heard.join()`); got != "ahoy \"there\"\n" {
						t.Errorf("page %d heard %q", i, got)
					}
					if moves := p.Read(t, "its moves", `moves.join()`); strings.Contains(moves, ",") {
						t.Errorf("page %d was on %s", i, moves)
					}
				}
			})
		}
	})
}
