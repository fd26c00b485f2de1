package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

var guestNames = []string{"Ada", "Ben", "Cleo", "Dan", "Elin", "Femi", "Gus", "Hana", "Ivo", "June", "Kofi", "Lena"}

// guest is a visitor without a browser, so that there is company on the other backends. It does what every client of a
// sticky WebSocket service should: it keeps its cookies, and after a cut it comes back by itself, soon but not at the
// same moment as everybody else.
func guest(ctx context.Context, url, name string) {
	jar, _ := cookiejar.New(nil) // without options there is nothing to fail
	client := &http.Client{Jar: jar}
	var home string
	var seen int64
	var cut time.Time
	for wait := time.Duration(0); ctx.Err() == nil; wait = min(2*wait, 2*time.Second) {
		select {
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		case <-ctx.Done():
			return
		}
		c, _, err := websocket.Dial(ctx, fmt.Sprintf("%s/chat?after=%d", url, seen), &websocket.DialOptions{HTTPClient: client})
		if err == nil {
			var at string
			at, seen = visit(ctx, c, name, home, seen, cut)
			c.CloseNow()
			if at != "" {
				home, wait = at, 0
			}
			cut = time.Now()
		}
		wait = max(wait, 200*time.Millisecond)
	}
}

// visit stays on one socket until it ends, and returns which backend that was and the last line that it saw.
func visit(ctx context.Context, c *websocket.Conn, name, home string, seen int64, cut time.Time) (string, int64) {
	var h hello
	if wsjson.Read(ctx, c, &h) != nil {
		return "", seen
	}
	say := func(format string, a ...any) {
		wsjson.Write(ctx, c, map[string]string{"from": name, "text": fmt.Sprintf(format, a...)})
	}
	switch {
	case home == "":
		say("Hello from %s.", h.Backend)
	case home != h.Backend:
		say("I was on %s, now I am on %s. It took %d ms.", home, h.Backend, time.Since(cut).Milliseconds())
	}
	for {
		var l line
		if wsjson.Read(ctx, c, &l) != nil {
			return h.Backend, seen
		}
		seen = max(seen, l.Seq)
	}
}
