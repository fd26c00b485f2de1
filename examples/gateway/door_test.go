package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"
)

// The program refuses whom its flags name.
func TestDoor(t *testing.T) {
	t.Parallel()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			if _, _, err := c.Read(r.Context()); err != nil {
				return
			}
		}
	}))
	t.Cleanup(node.Close)
	start := func(t *testing.T, args ...string) (url string) {
		p := gateway(t, nil, append([]string{"-listen", "127.0.0.1:0", "-backend", "a=" + node.URL}, args...)...)
		return "http://" + address(t, p)
	}
	dial := func(t *testing.T, url, origin string) (*websocket.Conn, int) {
		t.Helper()
		c, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if res == nil {
			t.Fatal(err)
		}
		if c != nil {
			t.Cleanup(func() { c.CloseNow() })
		}
		return c, res.StatusCode
	}
	for _, tt := range []struct {
		name, flag, origin string
		want               int
	}{
		{"same", "same", "https://evil.test", 403},
		{"a list", "https://app.test,https://*.example.org", "https://a.example.org", 101},
		{"a list, another", "https://app.test,https://*.example.org", "https://evil.test", 403},
		{"report", "report:same", "https://evil.test", 101},
		{"none", "", "https://evil.test", 101},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := start(t, "-origin", tt.flag)
			if _, code := dial(t, url, tt.origin); code != tt.want {
				t.Errorf("got %d, want %d", code, tt.want)
			}
			if _, code := dial(t, url, url); code != 101 {
				t.Errorf("the same origin got %d", code)
			}
		})
	}
	for name, tt := range map[string]struct {
		args []string
		want int
	}{
		"connections": {[]string{"-limit-connections", "2"}, 429},
		"rate":        {[]string{"-limit-rate", "1"}, 429},
		"tunnels":     {[]string{"-limit-tunnels", "2"}, 503},
		"handshakes":  {[]string{"-limit-handshakes", "2"}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := start(t, tt.args...)
			codes := make(map[int]int)
			for range 20 {
				_, code := dial(t, url, url)
				codes[code]++
			}
			if codes[101] < 2 || codes[101] > 10 || codes[101]+codes[tt.want] != 20 {
				t.Errorf("%v, want some 101 and the others %d", codes, tt.want)
			}
		})
	}
	t.Run("messages", func(t *testing.T) {
		t.Parallel()
		url := start(t, "-limit-messages", "1")
		c, _ := dial(t, url, url)
		for range 1000 {
			if err := c.Write(t.Context(), websocket.MessageText, []byte("flood")); err != nil {
				break
			}
		}
		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("got %v, want close code 1008", err)
		}
	})
}
