package affinity_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// setCookies returns the Set-Cookie lines of an answer after Bind, and the key.
func setCookies(tb testing.TB, a affinity.Affinity, r *http.Request, found affinity.Pin, home string, set ...string) ([]string, string) {
	tb.Helper()
	res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Set-Cookie": slices.Clone(set)}, Request: r}
	key, err := a.Bind(to(home, res, found))
	if err != nil {
		tb.Fatal(err)
	}
	return res.Header["Set-Cookie"], key
}

func TestAppCookiePrefixOnTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		set      string // by the backend
		want     string // by the gateway
		back     string // by the client
		restored string // to the backend
	}{
		{"plain", "io=abc", "io=b1~abc", "io=b1~abc", "io=abc"},
		{"all attributes",
			`io=abc; Path=/; Domain=a.example; Expires=Wed, 21 Oct 2099 07:28:00 GMT; Max-Age=60; Secure; HttpOnly; SameSite=None; Partitioned; Priority=High`,
			`io=b1~abc; Path=/; Domain=a.example; Expires=Wed, 21 Oct 2099 07:28:00 GMT; Max-Age=60; Secure; HttpOnly; SameSite=None; Partitioned; Priority=High`,
			"io=b1~abc", "io=abc"},
		{"no attribute as a book has it", "io=abc;PATH = / ;; httponly;x", "io=b1~abc;PATH = / ;; httponly;x", "io=b1~abc", "io=abc"},
		{"white space", " io\t= abc ; Path=/", " io\t= b1~abc ; Path=/", "io=b1~abc", "io=abc"},
		{"quotes", `io="abc"; Path=/`, `io="b1~abc"; Path=/`, `io="b1~abc"`, `io="abc"`},
		{"quotes that the client takes off", `io="abc"`, `io="b1~abc"`, "io=b1~abc", "io=abc"},
		{"quotes as HAProxy leaves them", "", "", `io=b1~"abc"`, `io="abc"`},
		{"an odd quote", `io="abc`, `io=b1~"abc`, `io=b1~"abc`, `io="abc`},
		{"=, ~ and other characters", `io=a=b~c~~d|e,f g`, `io=b1~a=b~c~~d|e,f g`, `io=b1~a=b~c~~d|e,f g`, `io=a=b~c~~d|e,f g`},
		{"a value like a prefix", "io=b2~abc", "io=b1~b2~abc", "io=b1~b2~abc", "io=b2~abc"},
		{"empty", "io=", "io=b1~", "io=b1~", "io="},
		{"deletion", "io=x; Max-Age=0", "io=b1~x; Max-Age=0", "a=1", "a=1"},
		{"other cookies", "xio=abc", "xio=abc", "xio=abc; a=io=b1~x", "xio=abc; a=io=b1~x"},
		{"another case", "IO=abc", "IO=abc", "IO=b1~abc", "IO=b1~abc"},
		{"no value", "io", "io", "io", "io"},
		{"in an attribute", "a=1; io=abc", "a=1; io=abc", "a=1", "a=1"},
		{"several in a request", "", "", "io=b1~x; a=1;io = b2~y ;b=2; io=z", "io=x; a=1;io = y ;b=2; io=z"},
		{"unknown backend", "", "", "io=gone~abc", "io=abc"},
		{"not a prefix", "", "", `io={"id":1}~abc; io=~x; io=b 1~x`, `io={"id":1}~abc; io=~x; io=b 1~x`},
		{"too long for a prefix", "", "", "io=" + strings.Repeat("b", 65) + "~x", "io=" + strings.Repeat("b", 65) + "~x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range []*affinity.AppCookie{
				{Name: "io", Prefix: true},
				{Name: "io", Prefix: true, Backends: map[string]string{"b1": "node-1", "b2": "node-2", "b3": "node-1"}},
			} {
				home := "b1"
				if c.Backends != nil {
					home = "node-1"
				}
				if set, _ := setCookies(t, c, get("/"), affinity.Pin{}, home, "a=1", tt.set); !slices.Equal(set, []string{"a=1", tt.want}) {
					t.Errorf("Set-Cookie = %q, want %q", set, tt.want)
				}
				lines := []string{"b=2", tt.back}
				out := get("/", lines...)
				c.Rewrite(out, affinity.Pin{})
				if got := out.Header["Cookie"]; !slices.Equal(got, []string{"b=2", tt.restored}) {
					t.Errorf("Cookie = %q, want %q", got, tt.restored)
				}
				if lines[1] != tt.back {
					t.Errorf("the client's own slice became %q", lines)
				}
			}
		})
	}
}

func TestAppCookieSetsSeveral(t *testing.T) {
	t.Parallel()
	c := &affinity.AppCookie{Name: "io", Prefix: true}
	set, key := setCookies(t, c, get("/"), affinity.Pin{Key: "old"}, "b1", "io=1; Path=/a", "b=2", "io=2; Path=/b", "io=deleted; Max-Age=0; Path=/c")
	if want := []string{"io=b1~1; Path=/a", "b=2", "io=b1~2; Path=/b", "io=b1~deleted; Max-Age=0; Path=/c"}; !slices.Equal(set, want) {
		t.Errorf("Set-Cookie = %q, want %q", set, want)
	}
	if found := find(t, c, get("/", "io=b1~2")); found.Key != key {
		t.Errorf("Bind returned the key %q, Find finds %q", key, found.Key)
	}
	if _, key := setCookies(t, c, get("/"), affinity.Pin{Key: "old"}, "b1", "io="); key != "" {
		t.Errorf("for an empty cookie, Bind returned the key %q", key)
	}
	if _, key := setCookies(t, c, get("/"), affinity.Pin{Key: "old"}, "b1", "b=2"); key != "old" {
		t.Errorf("without the cookie, Bind returned the key %q", key)
	}
}

func TestAppCookiePrefixFind(t *testing.T) {
	t.Parallel()
	key := find(t, &affinity.AppCookie{Name: "io", Prefix: true}, get("/", "io=abc")).Key
	if key == "" || strings.Contains(key, "abc") {
		t.Fatalf("the key is %q", key)
	}
	for _, tt := range []struct {
		name, cookies string
		want          affinity.Pin
	}{
		{"none", "a=1", affinity.Pin{}},
		{"no prefix yet", "io=abc", affinity.Pin{Key: key}},
		{"known", "io=b1~abc", affinity.Pin{Backend: "node-1", Key: key, Status: affinity.Hit}},
		{"in quotes", `io="b1~abc"`, affinity.Pin{Backend: "node-1", Key: key, Status: affinity.Hit}},
		{"before quotes", `io=b1~"abc"`, affinity.Pin{Backend: "node-1", Key: key, Status: affinity.Hit}},
		{"unknown", "io=b9~abc", affinity.Pin{Key: key, Status: affinity.Unknown}},
		{"nothing behind", "io=b1~", affinity.Pin{Backend: "node-1", Status: affinity.Hit}},
		{"empty", "io=", affinity.Pin{}},
		{"known behind others", "io=x; io=b9~y; io=b1~abc", affinity.Pin{Backend: "node-1", Key: key, Status: affinity.Hit}},
		{"unknown behind one without", "io=x; io=b9~abc; io=y", affinity.Pin{Key: key, Status: affinity.Unknown}},
		{"two without", "io=abc; io=x", affinity.Pin{Key: key}},
	} {
		c := &affinity.AppCookie{Name: "io", Prefix: true, Backends: map[string]string{"b1": "node-1"}}
		if found := find(t, c, get("/", tt.cookies)); found != tt.want {
			t.Errorf("%s: Find = %+v, want %+v", tt.name, found, tt.want)
		}
	}
}

func TestAppCookieSealedPrefix(t *testing.T) {
	t.Parallel()
	k1, k2 := testSecrets[0], []byte("the key that comes behind the first one")
	sealed := func(name string, keys ...[]byte) *affinity.AppCookie {
		return &affinity.AppCookie{Name: name, Prefix: true, Secrets: keys}
	}
	set, _ := setCookies(t, sealed("io", k1), get("/"), affinity.Pin{}, "node-1", "io=a~b; Path=/")
	cookie, attributes, _ := strings.Cut(set[0], ";")
	if attributes != " Path=/" || strings.Contains(cookie, "node") || !strings.HasSuffix(cookie, "~a~b") {
		t.Fatalf("Set-Cookie = %q", set)
	}
	plain := affinity.Cookie{Cookie: http.Cookie{Name: "io"}, Secrets: [][]byte{k1}}
	other, _, _ := strings.Cut(bind(t, &plain, get("/"), affinity.Pin{}, "node-1").Get("Set-Cookie"), ";")

	for _, tt := range []struct {
		name   string
		by     *affinity.AppCookie
		cookie string
		want   affinity.Status
		left   string // what the backend sees
	}{
		{"same key", sealed("io", k1), cookie, affinity.Hit, "io=a~b"},
		{"rotated", sealed("io", k2, k1), cookie, affinity.Hit, "io=a~b"},
		{"in quotes", sealed("io", k1), `io="` + cookie[3:] + `"`, affinity.Hit, `io="a~b"`},
		{"other key", sealed("io", k2), cookie, affinity.Forged, cookie},
		{"other name", sealed("oi", k1), strings.Replace(cookie, "io", "oi", 1), affinity.Forged, strings.Replace(cookie, "io", "oi", 1)},
		{"a value of Cookie", sealed("io", k1), other + "~a", affinity.Forged, other + "~a"},
		{"changed", sealed("io", k1), strings.Replace(cookie, "io=A", "io=B", 1), affinity.Forged, strings.Replace(cookie, "io=A", "io=B", 1)},
		{"readable", sealed("io", k1), "io=node-1~a", affinity.Forged, "io=node-1~a"},
		{"none", sealed("io", k1), "io=a", affinity.None, "io=a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := get("/", tt.cookie)
			found := find(t, tt.by, r)
			if found.Status != tt.want || (found.Backend == "node-1") != (tt.want == affinity.Hit) || (found.Key == "") != (tt.want == affinity.Forged) {
				t.Errorf("Find = %+v, want %v", found, tt.want)
			}
			tt.by.Rewrite(r, found)
			if got := r.Header.Get("Cookie"); got != tt.left {
				t.Errorf("Cookie = %q, want %q", got, tt.left)
			}
		})
	}
}

func TestAppCookieWithoutANameForTheHome(t *testing.T) {
	t.Parallel()
	for _, c := range []*affinity.AppCookie{
		{Name: "io", Prefix: true},
		{Name: "io", Prefix: true, Backends: map[string]string{"b1": "node-1"}},
		{Name: "io", Prefix: true, Secrets: testSecrets},
	} {
		res := &http.Response{Header: http.Header{"Set-Cookie": {"io=abc"}}, Request: get("/")}
		home := "a~" + strings.Repeat("b", 2000)
		_, err := c.Bind(to(home, res, affinity.Pin{}))
		if err == nil || strings.Contains(err.Error(), "abc") || res.Header.Get("Set-Cookie") != "io=abc" {
			t.Errorf("Bind = %v, Set-Cookie = %q", err, res.Header["Set-Cookie"])
		}
	}
}

// Sequences of requests and answers between a client and an application.
func TestAppCookieLearns(t *testing.T) {
	t.Parallel()
	type visit struct {
		cookies string
		home    string   // the backend that answers
		set     []string // the cookies that it sets
		found   string   // what Find finds: status and home
	}
	for _, tt := range []struct {
		name   string
		visits []visit
	}{
		{"what is set", []visit{
			{"", "b1", []string{"io=x; Path=/; HttpOnly"}, "none "},
			{"io=x", "b1", nil, "hit b1"},
			{`io="x"`, "b1", nil, "hit b1"},
			{"a=io=x", "b1", nil, "none "},
		}},
		{"several at once", []visit{
			{"", "b1", []string{"io=x; Path=/a", "a=1", "io=y; Path=/b"}, "none "},
			{"io=x", "b1", nil, "hit b1"},
			{"io=y", "b1", nil, "hit b1"},
		}},
		{"what was there before", []visit{
			{"io=x", "b1", nil, "unknown "},
			{"io=x", "b1", nil, "hit b1"},
		}},
		{"not what the backend replaces", []visit{
			{"io=x", "b1", []string{"io=y"}, "unknown "},
			{"io=x", "b1", []string{"io=; Max-Age=0"}, "unknown "},
			{"io=x", "b1", []string{"io=y"}, "unknown "},
			{"io=y", "b1", nil, "hit b1"},
		}},
		{"a move", []visit{
			{"io=x", "b1", nil, "unknown "},
			{"io=x", "b2", nil, "hit b1"},
			{"io=x", "b2", nil, "hit b2"},
		}},
		{"a move to a new session", []visit{
			{"io=x", "b1", nil, "unknown "},
			{"io=x", "b2", []string{"io=y"}, "hit b1"},
			{"io=y", "b2", nil, "hit b2"},
		}},
		{"a move with a rolling cookie", []visit{
			{"io=x", "b1", []string{"io=x"}, "unknown "},
			{"io=x", "b1", []string{"io=x"}, "hit b1"},
			{"io=x", "b2", []string{"io=x"}, "hit b1"},
			{"io=x", "b2", []string{"io=x"}, "hit b2"},
		}},
		{"a value that is made again", []visit{
			{"", "b1", []string{"io=x"}, "none "},
			{"", "b2", []string{"io=x"}, "none "},
			{"io=x", "b2", nil, "hit b2"},
		}},
		{"deletion by Max-Age", []visit{
			{"", "b1", []string{"io=x"}, "none "},
			{"io=x", "b1", []string{"io=x; Max-Age=0; Expires=Wed, 21 Oct 2099 07:28:00 GMT"}, "hit b1"},
			{"io=x", "b1", nil, "unknown "},
		}},
		{"deletion by Expires", []visit{
			{"", "b1", []string{"io=x"}, "none "},
			{"io=x", "b1", []string{"io=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=x"}, "hit b1"},
			{"io=x", "b1", nil, "unknown "},
		}},
		{"deletion by nothing", []visit{
			{"", "b1", []string{"io=x"}, "none "},
			{"io=x", "b1", []string{"io="}, "hit b1"},
			{"io=x", "b1", nil, "unknown "},
		}},
		{"no deletion", []visit{
			{"", "b1", []string{"io=x; Max-Age=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"}, "none "},
			{"io=x", "b1", []string{"a=1; Max-Age=0", "io=x; Expires=never; Max-Age=", "io=; Max-Age=0; Path=/old"}, "hit b1"},
			{"io=x", "b1", nil, "hit b1"},
		}},
		{"deletion of one of two", []visit{
			{"", "b1", []string{"io=x"}, "none "},
			{"io=x; io=y", "b1", []string{"io=; Max-Age=0; Path=/a"}, "hit b1"},
			{"io=x", "b1", nil, "hit b1"},
		}},
		{"the first that is known", []visit{
			{"", "b1", []string{"io=x"}, "none "},
			{"io=y; io=; io=x", "b1", nil, "hit b1"},
			{"io=y; io=z", "b2", nil, "unknown "},
			{"io=z; io=y", "b2", nil, "hit b2"},
		}},
		{"nothing of an answer without a home", []visit{
			{"io=x", "", []string{"io=y"}, "unknown "},
			{"io=x", "", []string{"io=y"}, "unknown "},
			{"io=y", "", nil, "unknown "},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &affinity.AppCookie{Name: "io"}
			for i, v := range tt.visits {
				r := get("/", v.cookies)
				found := find(t, c, r)
				if got := found.Status.String() + " " + found.Backend; got != v.found {
					t.Errorf("visit %d: found %q, want %q", i, got, v.found)
				}
				set, key := setCookies(t, c, r, found, v.home, v.set...)
				if !slices.Equal(set, v.set) {
					t.Errorf("visit %d: Set-Cookie = %q, was %q", i, set, v.set)
				}
				if v.home != "" && len(v.set) == 1 && !strings.Contains(v.set[0], "=;") {
					cookie, _, _ := strings.Cut(v.set[0], ";")
					if next := find(t, c, get("/", cookie)); next.Key != key && next.Backend != "" {
						t.Errorf("visit %d: Bind returned the key %q, Find finds %q", i, key, next.Key)
					}
				}
				c.Rewrite(r, found)
				if got := r.Header.Get("Cookie"); got != v.cookies {
					t.Errorf("visit %d: Cookie = %q, was %q", i, got, v.cookies)
				}
			}
		})
	}
}

// A session that a stand-in begins belongs to the stand-in. A session that the
// client had before stays with its home.
func TestAppCookieOfAStandIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*affinity.AppCookie{
		"learnt": {Name: "io"}, "prefix": {Name: "io", Prefix: true}, "sealed": {Name: "io", Prefix: true, Secrets: testSecrets},
	} {
		set, _ := setCookies(t, c, get("/"), affinity.Pin{}, "b1", "io=x")
		r := get("/", set[0])
		for _, tt := range []struct{ set, home string }{{"io=x", "b1"}, {"io=y", "b2"}} {
			res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Set-Cookie": {tt.set}}}
			key, err := c.Bind(affinity.Answer{Response: res, Request: r, Found: find(t, c, r), Home: "b1", StandIn: "b2"})
			if err != nil {
				t.Fatal(err)
			}
			if found := find(t, c, get("/", res.Header["Set-Cookie"][0])); found.Backend != tt.home || found.Key != key {
				t.Errorf("%s, %s: Find = %+v, want %s and the key %q", name, tt.set, found, tt.home, key)
			}
		}
		if found := find(t, c, r); found.Backend != "b1" {
			t.Errorf("%s: Find = %+v, was at b1", name, found)
		}
	}
}

func TestAppCookieLifetimesAreTheStores(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &affinity.AppCookie{Name: "io", Store: &affinity.LRU{Idle: time.Hour, Age: 2 * time.Hour}}
		setCookies(t, c, get("/"), affinity.Pin{}, "b1", "io=x")
		for _, want := range []affinity.Status{affinity.Hit, affinity.Hit, affinity.Unknown} {
			time.Sleep(45 * time.Minute)
			if found := find(t, c, get("/", "io=x")); found.Status != want {
				t.Errorf("Find = %+v, want %v", found, want)
			}
		}
	})
}

func TestAppCookieAndItsStore(t *testing.T) {
	t.Parallel()
	store := &brokenStore{}
	c := &affinity.AppCookie{Name: "io", Store: store}
	r := get("/", "io=secret")
	found, err := c.Find(r)
	if !errors.Is(err, errStore) || found.Key == "" || found.Backend != "" || found.Status != affinity.Unknown || strings.Contains(err.Error(), "secret") {
		t.Errorf("Find = %+v, %v", found, err)
	}
	res := &http.Response{Header: http.Header{"Set-Cookie": {"io=secret2"}}, Request: r}
	key, err := c.Bind(to("b1", res, found))
	if !errors.Is(err, errStore) || !strings.Contains(err.Error(), `"b1"`) || strings.Contains(err.Error(), "secret") {
		t.Errorf("Bind = %v", err)
	}
	if next, _ := c.Find(get("/", "io=secret2")); next.Key != key {
		t.Errorf("Bind returned the key %q, Find finds %q", key, next.Key)
	}
	for _, k := range store.keys {
		if !strings.HasPrefix(k, "io:") || len(k) != 3+22 || strings.Contains(k, "secret") {
			t.Errorf("stored under %q", k)
		}
	}

	// If nothing changes, the store is only read.
	store.keys = nil
	hit := affinity.Pin{Backend: "b1", Key: found.Key, Status: affinity.Hit}
	setCookies(t, c, r, hit, "b1")
	setCookies(t, c, r, hit, "b1", "io=secret; Max-Age=60", "a=1")
	setCookies(t, c, get("/"), affinity.Pin{}, "b1", "a=1")
	setCookies(t, c, r, affinity.Pin{Key: found.Key, Status: affinity.Unknown}, "b1", "io=; Max-Age=0")
	if len(store.keys) > 0 {
		t.Errorf("the store was asked for %q", store.keys)
	}
}

func TestAppCookieValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cookie *affinity.AppCookie
		want   string
	}{
		{"no name", &affinity.AppCookie{}, "Name"},
		{"bad name", &affinity.AppCookie{Name: "a b"}, "Name"},
		{"keys without prefix", &affinity.AppCookie{Name: "io", Secrets: testSecrets}, "Prefix"},
		{"names without prefix", &affinity.AppCookie{Name: "io", Backends: map[string]string{"a": "b"}}, "Prefix"},
		{"store and prefix", &affinity.AppCookie{Name: "io", Prefix: true, Store: &affinity.LRU{}}, "Store"},
		{"keys and names", &affinity.AppCookie{Name: "io", Prefix: true, Secrets: testSecrets, Backends: map[string]string{"a": "b"}}, "Backends"},
		{"short key", &affinity.AppCookie{Name: "io", Prefix: true, Secrets: [][]byte{[]byte("hidden")}}, "6 bytes"},
		{"bad name of a backend", &affinity.AppCookie{Name: "io", Prefix: true, Backends: map[string]string{"a~": "b"}}, `"a~"`},
		{"store", &affinity.AppCookie{Name: "io", Store: &affinity.LRU{Size: -5}}, "size -5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.cookie.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("Validate = %v, want an error with %q", err, tt.want)
			}
			r := get("/", "io=a~x")
			found, findErr := tt.cookie.Find(r)
			res := &http.Response{Header: http.Header{"Set-Cookie": {"io=x"}}, Request: r}
			_, bindErr := tt.cookie.Bind(to("b1", res, found))
			tt.cookie.Rewrite(r, found)
			if findErr == nil || bindErr == nil || found != (affinity.Pin{}) || res.Header.Get("Set-Cookie") != "io=x" || r.Header.Get("Cookie") != "io=a~x" {
				t.Errorf("Find = %+v, %v, Bind = %v, %v", found, findErr, res.Header, bindErr)
			}
		})
	}
}

// Every value that an application sets comes back to it unchanged. Only a line that
// sets the cookie changes, and only by the prefix.
func FuzzAppCookiePrefix(f *testing.F) {
	for _, line := range []string{
		"io=abc; Path=/", `io="a;b"`, `io="`, `io=""`, `io=""""`, " io = a b\t; x", "io=a~b=~", "io=", "io", "xio=a", "=io=a", ";io=a", "io==a", `io="a"b"`,
	} {
		f.Add(line)
	}
	readable := &affinity.AppCookie{Name: "io", Prefix: true}
	sealed := &affinity.AppCookie{Name: "io", Prefix: true, Secrets: testSecrets}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n") {
			t.Skip("no field of a header has line breaks")
		}
		pair, rest, more := strings.Cut(line, ";")
		name, value, ok := strings.Cut(pair, "=")
		ours := ok && trim(name) == "io"
		for _, c := range []*affinity.AppCookie{readable, sealed} {
			set, key := setCookies(t, c, get("/"), affinity.Pin{}, "b1", line)
			if !ours {
				if set[0] != line {
					t.Errorf("Set-Cookie: %q became %q", line, set[0])
				}
				continue
			}
			pair, nowRest, nowMore := strings.Cut(set[0], ";")
			nowName, nowValue, _ := strings.Cut(pair, "=")
			if nowName != name || nowRest != rest || nowMore != more {
				t.Errorf("Set-Cookie: %q became %q", line, set[0])
			}
			r := get("/", "io="+trim(nowValue))
			found := find(t, c, r)
			if found.Backend != "b1" || found.Status != affinity.Hit {
				t.Errorf("Find of %q = %+v", r.Header["Cookie"], found)
			}
			if key != "" && found.Key != key {
				t.Errorf("Bind of %q returned the key %q, Find finds %q", line, key, found.Key)
			}
			c.Rewrite(r, found)
			if got := r.Header.Get("Cookie"); got != "io="+trim(value) {
				t.Errorf("%q came back as %q", line, got)
			}
		}
	})
}

// A request changes only by the removal of prefixes before values of the cookie.
func FuzzAppCookieRewrite(f *testing.F) {
	f.Add("io=b1~abc; a=1; io=x~y~z")
	f.Add(` ;; io = "b1~a" ;io=~;io=;io;=io=b1~x; xio=b1~x;IO=b1~x`)
	f.Add("io=b1~a\tb~; io=\"b1~\"; io=b\"1~a")
	c := &affinity.AppCookie{Name: "io", Prefix: true}
	f.Fuzz(func(t *testing.T, line string) {
		r := get("/", line)
		find(t, c, r)
		c.Rewrite(r, affinity.Pin{})
		var want []string
		tries := 0
		for _, part := range parts(line) {
			name, value, ok := strings.Cut(part, "=")
			if ok && trim(name) == "io" {
				if tries++; tries <= 8 {
					body := strings.TrimLeft(value, " \t")
					space := value[:len(value)-len(body)]
					if t := trim(body); len(t) > 1 && t[0] == '"' && t[len(t)-1] == '"' {
						space, body = space+`"`, body[1:]
					}
					if prefix, rest, ok := strings.Cut(body, "~"); ok && isID(prefix) {
						body = rest
					}
					part = name + "=" + space + body
				}
			}
			want = append(want, part)
		}
		if got := r.Header.Get("Cookie"); got != strings.Join(want, ";") {
			t.Errorf("Rewrite(%q)\n got %q\nwant %q", line, got, strings.Join(want, ";"))
		}
	})
}

func isID(s string) bool {
	const chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
	return s != "" && len(s) <= 64 && strings.Trim(s, chars) == ""
}
