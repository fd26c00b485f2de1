package main

import (
	"flag"
	"fmt"
	"net/http"
	"strings"

	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// door is what the flags say about whom the gateway refuses.
type door struct {
	origins                                          string
	connections, rate, tunnels, handshakes, messages int

	origin *limpet.Origin // nil: all origins are allowed
	limit  *limpet.Limit  // nil: no limits in front of the gateway
}

func (d *door) flags(fs *flag.FlagSet) {
	fs.StringVar(&d.origins, "origin", "", "refuse WebSockets and polling of other sites' pages: same, or a `list` of origins that are allowed beside the same one,\nas https://www.example.com,https://*.example.org; report:LIST only logs what it would refuse; none: all are allowed")
	fs.IntVar(&d.connections, "limit-connections", 0, "most requests in flight and WebSockets, `N` of one client's address (IPv6: of its /64); 0: no limit")
	fs.IntVar(&d.rate, "limit-rate", 0, "most requests a second of one client's address, `N`; twice as many at once; 0: no limit")
	fs.IntVar(&d.tunnels, "limit-tunnels", 0, "most WebSockets in all, `N`; 0: no limit")
	fs.IntVar(&d.handshakes, "limit-handshakes", 0, "most WebSockets opened a second in all, `N`; 0: no limit")
	fs.IntVar(&d.messages, "limit-messages", 0, "most messages a second on a WebSocket of a client, `N`; those of ten seconds at once; 0: no limit")
}

// build makes what the flags ask for. Mistakes in them are errors.
func (d *door) build(client limpet.ClientIP, tunnels *upgrade.Proxy) error {
	for _, limit := range []struct {
		flag string
		n    int
	}{
		{"-limit-connections", d.connections},
		{"-limit-rate", d.rate},
		{"-limit-tunnels", d.tunnels},
		{"-limit-handshakes", d.handshakes},
		{"-limit-messages", d.messages},
	} {
		if limit.n < 0 || limit.n > 1e6 {
			return fmt.Errorf("%s %d: want 1 to 1000000, or 0 for no limit", limit.flag, limit.n)
		}
	}
	tunnels.MessageRate = d.messages
	if d.connections+d.rate+d.tunnels+d.handshakes > 0 {
		or := func(n int) int { // 0 would be the library's default
			if n == 0 {
				return -1
			}
			return n
		}
		d.limit = &limpet.Limit{
			Connections: or(d.connections), Rate: or(d.rate), Tunnels: d.tunnels, Handshakes: d.handshakes, ClientIP: client,
		}
	}
	if d.origins == "" {
		return nil
	}
	list, report := strings.CutPrefix(d.origins, "report:")
	d.origin = &limpet.Origin{ClientIP: client, Polling: true, ReportOnly: report}
	if list != "same" {
		d.origin.Allow = strings.Split(strings.ReplaceAll(list, " ", ""), ",")
	}
	if err := d.origin.Validate(); err != nil {
		return fmt.Errorf("-origin: %w", err)
	}
	return nil
}

// handler puts what was built in front of next.
func (d *door) handler(next http.Handler) http.Handler {
	if d.origin != nil {
		next = d.origin.Handler(next)
	}
	if d.limit != nil {
		next = d.limit.Handler(next)
	}
	return next
}
