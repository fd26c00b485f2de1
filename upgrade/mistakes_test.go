package upgrade_test

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// What no user can mean is an error before a backend is dialled.
func TestMistakes(t *testing.T) {
	t.Parallel()
	dialled := errors.New("dialled")
	for _, tt := range []struct {
		name  string
		proxy *upgrade.Proxy
		opts  upgrade.ConnectOptions
		want  string
	}{
		{"nothing wrong", &upgrade.Proxy{IdleTimeout: time.Hour, MaxAge: time.Hour, MessageLimit: 1, Protocols: []string{"tus", "IRC/6.9"}}, upgrade.ConnectOptions{Turn: 0.999}, "dialled"},
		{"IdleTimeout", &upgrade.Proxy{IdleTimeout: -1}, upgrade.ConnectOptions{}, "IdleTimeout -1ns"},
		{"HandshakeTimeout", &upgrade.Proxy{HandshakeTimeout: -1}, upgrade.ConnectOptions{}, "HandshakeTimeout -1ns"},
		{"HandshakeTimeout without a unit", &upgrade.Proxy{HandshakeTimeout: 10}, upgrade.ConnectOptions{}, "HandshakeTimeout is 10ns: a number without a unit"},
		{"MaxAge", &upgrade.Proxy{MaxAge: -time.Hour}, upgrade.ConnectOptions{}, "MaxAge -1h"},
		{"IdleTimeout without a unit", &upgrade.Proxy{IdleTimeout: 30}, upgrade.ConnectOptions{}, "IdleTimeout is 30ns: a number without a unit"},
		{"MaxAge without a unit", &upgrade.Proxy{MaxAge: 3600}, upgrade.ConnectOptions{}, "MaxAge is 3.6µs: a number without a unit"},
		{"MessageLimit", &upgrade.Proxy{MessageLimit: -1}, upgrade.ConnectOptions{}, "MessageLimit -1"},
		{"StallTimeout", &upgrade.Proxy{StallTimeout: -time.Second}, upgrade.ConnectOptions{}, "StallTimeout -1s"},
		{"StallTimeout without a unit", &upgrade.Proxy{StallTimeout: 30}, upgrade.ConnectOptions{}, "StallTimeout is 30ns: a number without a unit"},
		{"MessageRate", &upgrade.Proxy{MessageRate: -1}, upgrade.ConnectOptions{}, "MessageRate -1"},
		{"MessageBurst", &upgrade.Proxy{MessageRate: 1, MessageBurst: -1}, upgrade.ConnectOptions{}, "MessageBurst -1"},
		{"MessageBurst alone", &upgrade.Proxy{MessageBurst: 1}, upgrade.ConnectOptions{}, "no MessageRate"},
		{"MessageRate that is none", &upgrade.Proxy{MessageRate: 1e9}, upgrade.ConnectOptions{}, "MessageRate 1000000000"},
		{"a protocol without a name", &upgrade.Proxy{Protocols: []string{""}}, upgrade.ConnectOptions{}, "Protocols"},
		{"several protocols in one", &upgrade.Proxy{Protocols: []string{"tus, irc"}}, upgrade.ConnectOptions{}, `"tus, irc"`},
		{"a turn before the first", &upgrade.Proxy{}, upgrade.ConnectOptions{Turn: -0.1}, "Turn is -0.1"},
		{"a turn behind the last", &upgrade.Proxy{}, upgrade.ConnectOptions{Turn: 1}, "Turn is 1"},
		{"no turn", &upgrade.Proxy{}, upgrade.ConnectOptions{Turn: math.NaN()}, "Turn is NaN"},
	} {
		tt.proxy.Dial = func(context.Context, *http.Request) (net.Conn, error) { return nil, dialled }
		out := httptest.NewRequest("GET", "http://b.test/", nil)
		out.Body = nil
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			out.Header.Set(name, value)
		}
		_, err := tt.proxy.Connect(out, tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, dialled) != (tt.want == "dialled") {
			t.Errorf("%s: Connect: %v, want an error with %q", tt.name, err, tt.want)
		}
		if wrong := tt.proxy.Validate(); wrong != nil && wrong.Error() != err.Error() { // a Turn is no field of it
			t.Errorf("%s: Validate: %v", tt.name, wrong)
		}
	}
}
