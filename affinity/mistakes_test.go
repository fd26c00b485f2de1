package affinity_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// Settings that make no sense are errors, which name the field and say what to do.
func TestMistakes(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	type names = map[string]string
	cookie := func(c http.Cookie) affinity.Validator { return &affinity.Cookie{Cookie: c, Secrets: testSecrets} }
	keyed := func(keys ...string) affinity.Validator {
		c := &affinity.Cookie{Logger: quiet}
		for _, k := range keys {
			c.Secrets = append(c.Secrets, []byte(k))
		}
		return c
	}
	route := func(c http.Cookie) affinity.Validator { return &affinity.Route{Cookie: "id", Set: &c} }
	named := func(name string) affinity.Affinity {
		return &affinity.Cookie{Cookie: http.Cookie{Name: name}, Secrets: testSecrets}
	}
	eio := func(path string) affinity.Affinity { return &affinity.EngineIO{Path: path, Secrets: testSecrets} }
	secret := strings.Repeat("hidden", 6)
	for _, tt := range []struct {
		name string
		v    affinity.Validator
		want string // in the error, "" for none
	}{
		{"a key of zeros", keyed(string(make([]byte, 32))), "openssl rand -hex 32"},
		{"a key of one letter", keyed(secret, strings.Repeat("a", 40)), "secret 1 is one byte"},
		{"a key twice, as before a rotation", keyed(secret, secret[1:], secret), ""},
		{"keys", keyed(secret, secret[1:]), ""},
		{"sids with a key of zeros", &affinity.EngineIO{Secrets: [][]byte{make([]byte, 64)}}, "secret 0 is one byte"},
		{"prefix with a key of zeros", &affinity.AppCookie{Name: "io", Prefix: true, Secrets: [][]byte{make([]byte, 64)}}, "secret 0 is one byte"},
		{"mode", &affinity.EngineIO{Mode: 3, Secrets: testSecrets}, "no mode 3"},
		{"negative mode", &affinity.EngineIO{Mode: -1, Secrets: testSecrets}, "no mode -1"},

		{"a nil store of some type", &affinity.EngineIO{Store: (*affinity.Redis)(nil), Secrets: testSecrets}, "a nil *affinity.Redis was given"},
		{"a nil key of some type", &affinity.Table{Key: (*affinity.ClientAddr)(nil)}, "a nil *affinity.ClientAddr was given"},
		{"a nil member of some type", affinity.Chain{(*affinity.Cookie)(nil)}, "a nil *affinity.Cookie was given"},
		{"a nil member", affinity.Chain{nil}, "a member is nil"},

		{"expired", cookie(http.Cookie{Expires: time.Now().Add(-time.Hour)}), "has expired"},
		{"not expired", cookie(http.Cookie{Expires: time.Now().Add(time.Hour)}), ""},
		{"SameSite", cookie(http.Cookie{SameSite: 5}), "no SameSite 5"},
		{"path without a slash", cookie(http.Cookie{Path: "chat"}), "'/'"},
		{"SameSite=None", cookie(http.Cookie{SameSite: http.SameSiteNoneMode}), ""}, // and made Secure
		{"Partitioned", cookie(http.Cookie{Partitioned: true}), ""},
		{"__Host- on a domain", cookie(http.Cookie{Name: "__Host-x", Domain: "a.example"}), "no Domain"},
		{"route SameSite=None", route(http.Cookie{SameSite: http.SameSiteNoneMode}), "Secure"},
		{"route SameSite=None, Secure", route(http.Cookie{SameSite: http.SameSiteNoneMode, Secure: true}), ""},
		{"route Partitioned", route(http.Cookie{Partitioned: true}), "Secure"},
		{"route without a slash", route(http.Cookie{Path: "chat"}), "'/'"},
		{"route expired", route(http.Cookie{Expires: time.Unix(1, 0)}), "has expired"},
		{"route with a prefix", &affinity.Route{Cookie: "__Host-id", Set: &http.Cookie{}}, "Secure"},
		{"route with a prefix, Secure", &affinity.Route{Cookie: "__Host-id", Set: &http.Cookie{Secure: true}}, ""},
		{"route with a prefix that wants HttpOnly", &affinity.Route{Cookie: "__Http-id", Set: &http.Cookie{Secure: true}}, "HttpOnly"},
		{"a prefix of the application's", &affinity.Route{Cookie: "__Host-id"}, ""},
		{"no routes", &affinity.Route{Cookie: "id", Backends: names{}}, "Backends is empty"},
		{"route to nowhere", &affinity.Route{Cookie: "id", Backends: names{"r": ""}}, "no backend"},
		{"prefix of nowhere", &affinity.AppCookie{Name: "io", Prefix: true, Backends: names{"r": ""}}, "no backend"},
		{"value of nowhere", &affinity.CookieMap{Name: "server", Backends: names{"1": ""}}, "no backend"},
		{"value that can't be", &affinity.CookieMap{Name: "server", Backends: names{"1;": "b1"}}, `"1;"`},

		{"parameter without a name", &affinity.Hash{Key: affinity.Query("")}, "name of a parameter"},
		{"key of a cookie that can't be", &affinity.Table{Key: affinity.CookieValue("a b")}, `"a b"`},
		{"no function", &affinity.CookieMap{Name: "s", Backends: names{"1": "b1"}, Client: affinity.KeyFunc(nil)}, "nil"},
		{"networks", &affinity.Hash{Key: &affinity.ClientAddr{V6: -1}}, "-1"},
		{"negative age", &affinity.Table{Store: &affinity.LRU{Age: -1}}, "age"},
		{"never idle", &affinity.Table{Store: &affinity.LRU{Idle: -1}}, ""},

		{"an empty chain", affinity.Chain{}, "no members"},
		{"a nil chain", affinity.Chain(nil), "no members"},
		{"an empty chain in a chain", affinity.Chain{affinity.Chain{}}, "no members"},
		{"a nil member", affinity.Chain{eio(""), affinity.Chain{nil}}, "nil"},
		{"two equal cookies", affinity.Chain{named(""), named("limpet")}, `"limpet"`},
		{"two cookies, one by its prefixed name", affinity.Chain{named(""), named("__Host-limpet")}, `"__Host-limpet"`},
		{"two cookies", affinity.Chain{named("one"), named("two")}, ""},
		{"one cookie twice", affinity.Chain{named("one"), affinity.Chain{named("one")}}, `"one"`},
		{"the application's cookie twice", affinity.Chain{&affinity.AppCookie{Name: "io"}, &affinity.AppCookie{Name: "io", Prefix: true}}, `"io"`},
		{"a route in the name of a cookie", affinity.Chain{named("id"), &affinity.Route{Cookie: "id", Set: &http.Cookie{}}}, `"id"`},
		{"a route that is only read", affinity.Chain{&affinity.Route{Cookie: "id"}, &affinity.AppCookie{Name: "id"}}, ""},
		{"a cookie before sids", affinity.Chain{named("one"), eio("")}, "put the EngineIO first"},
		{"a table before sids", affinity.Chain{affinity.Chain{&affinity.Table{}}, eio("")}, "*affinity.Table stands before"},
		{"a hash before sids", affinity.Chain{&affinity.Hash{}, eio("")}, ""}, // has no homes
		{"sids twice", affinity.Chain{eio("/socket.io/"), eio("")}, "two EngineIO"},
		{"sids of two paths", affinity.Chain{eio("/socket.io/"), eio("/chat/"), named("")}, ""},
	} {
		err := tt.v.Validate()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: Validate = %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "affinity: ")):
			t.Errorf("%s: Validate = %v, want an error with %q", tt.name, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "hidden"):
			t.Errorf("%s: the error repeats a key: %v", tt.name, err)
		}
	}
}

// A chain refuses a Cookie before an EngineIO: the cookie's home would count, and the
// client might be moved away from its session.
func TestChainWithACookieBeforeSids(t *testing.T) {
	t.Parallel()
	c, e := &affinity.Cookie{Secrets: testSecrets}, &affinity.EngineIO{Secrets: testSecrets}
	set := bind(t, c, get("/"), affinity.Pin{}, "b2").Get("Set-Cookie")
	r := get("/?EIO=4&sid="+taggedSID, set[:strings.IndexByte(set, ';')])
	for _, tt := range []struct {
		chain affinity.Chain
		home  string
		fixed bool
	}{{affinity.Chain{c, e}, "b2", false}, {affinity.Chain{e, c}, "b1", true}} {
		if found := find(t, tt.chain, r); found.Backend != tt.home || found.Fixed != tt.fixed {
			t.Errorf("%T first: Find = %+v", tt.chain[0], found)
		}
	}
}
