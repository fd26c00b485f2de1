package affinity_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

func TestChainMayMove(t *testing.T) {
	t.Parallel()
	cookie := &affinity.Cookie{Secrets: testSecrets}
	engine := &affinity.EngineIO{Secrets: testSecrets}
	hash := &affinity.Hash{Key: affinity.Query("user")}
	table := &affinity.Table{Key: affinity.Query("user")}
	servers := &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a"}}
	session := "s1" + tagOf(t, engine, "a")
	for _, tt := range []struct {
		name   string
		chain  affinity.Chain
		cookie bool   // the client has Limpet's
		query  string // of the request
		other  string // cookie
		want   bool
	}{
		{"new", affinity.Chain{engine, cookie}, false, "", "", true},
		{"session", affinity.Chain{engine, cookie}, false, "EIO=4&transport=polling&sid=" + session, "", true},
		{"cookie", affinity.Chain{engine, cookie}, true, "", "", true},
		{"both", affinity.Chain{engine, cookie}, true, "EIO=4&transport=polling&sid=" + session, "", true},
		{"cookie before a hash", affinity.Chain{cookie, hash}, true, "user=u", "", true},
		{"new before a hash", affinity.Chain{cookie, hash}, false, "user=u", "", false},
		{"session before a hash", affinity.Chain{engine, hash}, false, "EIO=4&transport=polling&user=u&sid=" + session, "", false},
		{"session without a key", affinity.Chain{engine, hash}, false, "EIO=4&transport=polling&sid=" + session, "", true},
		{"table", affinity.Chain{engine, table}, false, "EIO=4&transport=polling&user=u&sid=" + session, "", false},
		{"new before a table", affinity.Chain{engine, table}, false, "", "", false},
		{"chosen by the client", affinity.Chain{engine, servers}, false, "EIO=4&transport=polling&sid=" + session, "server=1", false},
		{"cookie beside a chosen one", affinity.Chain{cookie, servers}, true, "", "server=1", false},
		{"only hash", affinity.Chain{hash}, false, "user=u", "", false},
	} {
		r := httptest.NewRequest("GET", "/socket.io/?"+tt.query, nil)
		if tt.cookie {
			res := answer(r, http.NoBody, 0)
			if _, err := cookie.Bind(affinity.Answer{Response: res, Request: r, Home: "a"}); err != nil {
				t.Fatal(err)
			}
			for _, c := range res.Cookies() {
				r.AddCookie(c)
			}
		}
		if tt.other != "" {
			r.Header.Add("Cookie", tt.other)
		}
		pin, err := tt.chain.Find(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := tt.chain.MayMove(pin); got != tt.want {
			t.Errorf("%s: %v, want %v (%+v)", tt.name, got, tt.want, pin)
		}
	}
}
