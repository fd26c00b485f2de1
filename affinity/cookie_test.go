package affinity_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

func TestCookieAttributes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cookie http.Cookie
		url    string
		want   string // of Set-Cookie, with V for the value
	}{
		{"plain HTTP", http.Cookie{}, "http://a.example/", "limpet=V; Path=/; HttpOnly; SameSite=Lax"},
		{"TLS", http.Cookie{}, "https://a.example/", "__Host-limpet=V; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"own name", http.Cookie{Name: "pin"}, "https://a.example/", "__Host-pin=V; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"prefixed name", http.Cookie{Name: "__secure-pin"}, "https://a.example/", "__secure-pin=V; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"prefixed name on plain HTTP", http.Cookie{Name: "__Host-pin"}, "http://a.example/", "__Host-pin=V; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"Domain", http.Cookie{Domain: "a.example"}, "https://b.a.example/", "limpet=V; Path=/; Domain=a.example; HttpOnly; Secure; SameSite=Lax"},
		{"Path", http.Cookie{Path: "/app"}, "https://a.example/", "limpet=V; Path=/app; HttpOnly; Secure; SameSite=Lax"},
		{"lifetime and value", http.Cookie{MaxAge: 60, Value: "x"}, "http://a.example/", "limpet=V; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"},
		{"SameSite=Strict", http.Cookie{SameSite: http.SameSiteStrictMode}, "http://a.example/", "limpet=V; Path=/; HttpOnly; SameSite=Strict"},
		{"SameSite=None", http.Cookie{SameSite: http.SameSiteNoneMode}, "https://a.example/", "__Host-limpet=V; Path=/; HttpOnly; Secure; SameSite=None"},
		{"SameSite=None on plain HTTP", http.Cookie{SameSite: http.SameSiteNoneMode}, "http://a.example/", "limpet=V; Path=/; HttpOnly; Secure; SameSite=None"},
		{"no SameSite", http.Cookie{SameSite: http.SameSiteDefaultMode}, "http://a.example/", "limpet=V; Path=/; HttpOnly"},
		{"Partitioned", http.Cookie{Partitioned: true}, "https://a.example/", "__Host-limpet=V; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"},
		{"Secure on plain HTTP", http.Cookie{Secure: true}, "http://a.example/", "limpet=V; Path=/; HttpOnly; Secure; SameSite=Lax"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &affinity.Cookie{Cookie: tt.cookie, Secrets: testSecrets}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			set := bind(t, c, get(tt.url), affinity.Pin{}, "b1").Get("Set-Cookie")
			name, rest, _ := strings.Cut(set, "=")
			value, rest, _ := strings.Cut(rest, ";")
			if got := name + "=V;" + rest; got != tt.want {
				t.Errorf("Set-Cookie = %q\nwant         %q", got, tt.want)
			}
			if found := find(t, c, get(tt.url, name+"="+value)); found.Backend != "b1" {
				t.Errorf("Find = %+v", found)
			}
		})
	}
}

func TestCookieValueBelongsToItsName(t *testing.T) {
	t.Parallel()
	c := &affinity.Cookie{Secrets: testSecrets}
	r := get("http://a.example/")
	bare, _, _ := strings.Cut(bind(t, c, r, affinity.Pin{}, "b1").Get("Set-Cookie"), ";")
	if found := find(t, c, get("https://a.example/", bare)); found.Backend != "b1" {
		t.Errorf("over TLS, the bare cookie gives %+v", found)
	}
	if found := find(t, c, get("https://a.example/", "__Host-"+bare)); found.Status != affinity.Forged {
		t.Errorf("a prefix put before the bare cookie gives %+v", found)
	}
}

func TestCookieOfSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &affinity.Cookie{Secrets: testSecrets, Age: time.Hour}
		sealed := func(url, home string) string {
			set := bind(t, c, get(url), affinity.Pin{}, home).Get("Set-Cookie")
			time.Sleep(time.Second)
			cookie, _, _ := strings.Cut(set, ";")
			return cookie
		}
		expired := sealed("http://a.example/", "b0")
		time.Sleep(time.Hour)
		older, newer := sealed("http://a.example/", "b1"), sealed("http://a.example/", "b2")
		host := sealed("https://a.example/", "b3")
		tossed := sealed("http://a.example/", "b4")

		for _, tt := range []struct {
			name    string
			cookies []string
			home    string
			status  affinity.Status
		}{
			{"newer last", []string{older + "; " + newer}, "b2", affinity.Hit},
			{"newer first", []string{newer + "; " + older}, "b2", affinity.Hit},
			{"on two lines", []string{older, newer}, "b2", affinity.Hit},
			{"behind a forged one", []string{"limpet=x; " + newer}, "b2", affinity.Hit},
			{"before a forged one", []string{newer + "; limpet=x"}, "b2", affinity.Hit},
			{"behind an expired one", []string{expired + "; " + older}, "b1", affinity.Hit},
			{"before an expired one", []string{older + "; " + expired}, "b1", affinity.Hit},
			{"expired and forged", []string{expired + "; limpet=x"}, "", affinity.Expired},
			{"the prefixed name goes first", []string{tossed + "; " + host}, "b3", affinity.Hit},
			{"in quotes", []string{` limpet = "` + strings.TrimPrefix(newer, "limpet=") + `" ;`}, "b2", affinity.Hit},
			{"behind too many", []string{strings.Repeat("limpet=x;", 8) + newer}, "", affinity.Forged},
			{"part of a name", []string{"x" + newer}, "", affinity.None},
			{"part of a value", []string{"x=" + newer}, "", affinity.None},
			{"none", []string{"a=1"}, "", affinity.None},
		} {
			if found := find(t, c, get("https://a.example/", tt.cookies...)); found.Backend != tt.home || found.Status != tt.status {
				t.Errorf("%s: Find = %+v, want %v of %q", tt.name, found, tt.status, tt.home)
			}
		}
	})
}

func TestCookieSecrets(t *testing.T) {
	t.Parallel()
	k1, k2 := []byte("one of two keys, 32 bytes in all"), []byte("the other one of them, which is longer")
	cookie := func(keys ...[]byte) *affinity.Cookie {
		return &affinity.Cookie{Secrets: keys, Logger: slog.New(slog.DiscardHandler)}
	}
	for _, tt := range []struct {
		name        string
		seals, open *affinity.Cookie
		want        affinity.Status
	}{
		{"same", cookie(k1), cookie(k1), affinity.Hit},
		{"new key added", cookie(k1), cookie(k1, k2), affinity.Hit},
		{"new key moved first", cookie(k2, k1), cookie(k1, k2), affinity.Hit},
		{"old key taken out", cookie(k1, k2), cookie(k2), affinity.Forged},
		{"no keys", cookie(), cookie(), affinity.Forged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := bind(t, tt.seals, get("/"), affinity.Pin{}, "b1").Get("Set-Cookie")
			value, _, _ := strings.Cut(set, ";")
			if found := find(t, tt.open, get("/", value)); found.Status != tt.want {
				t.Errorf("Find = %+v, want %v", found, tt.want)
			}
		})
	}
}

func TestCookieWithoutKeysWarnsOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := &affinity.Cookie{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	set := bind(t, c, get("/"), affinity.Pin{}, "b1").Get("Set-Cookie")
	value, _, _ := strings.Cut(set, ";")
	if found := find(t, c, get("/", value)); found.Backend != "b1" {
		t.Errorf("Find = %+v", found)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, &log)
	}
}

func TestCookieLifetimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		idle, age time.Duration
		visits    []time.Duration // since the first
		want      string          // per visit: . hit, R hit and issued anew, X expired
	}{
		{"no lifetime", 0, 0, []time.Duration{time.Hour, 1000 * time.Hour}, ".."},
		{"idle slides each quarter", time.Hour, 0, []time.Duration{14 * time.Minute, 16 * time.Minute, 20 * time.Minute, 32 * time.Minute, 90 * time.Minute}, ".R.RR"},
		{"idle expires", time.Hour, 0, []time.Duration{time.Hour, 61 * time.Minute}, "X."},
		{"age is not slid away", 40 * time.Minute, time.Hour, []time.Duration{20 * time.Minute, 40 * time.Minute, time.Hour}, "RRX"},
		{"age alone", 0, time.Hour, []time.Duration{59 * time.Minute, time.Hour}, ".X"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c := &affinity.Cookie{Secrets: testSecrets, Idle: tt.idle, Age: tt.age}
				set := bind(t, c, get("/"), affinity.Pin{}, "b1").Get("Set-Cookie")
				var got strings.Builder
				key := ""
				for _, at := range tt.visits {
					time.Sleep(at - time.Since(start))
					value, _, _ := strings.Cut(set, ";")
					r := get("/", value)
					found := find(t, c, r)
					if key == "" {
						key = found.Key
					}
					if found.Key != key {
						t.Errorf("after %v the key is %q, was %q", at, found.Key, key)
					}
					again := bind(t, c, r, found, "b1").Get("Set-Cookie")
					switch {
					case found.Status == affinity.Expired && found.Backend == "" && again != "":
						got.WriteByte('X')
					case found.Status == affinity.Hit && again != "":
						got.WriteByte('R')
					case found.Status == affinity.Hit:
						got.WriteByte('.')
					}
					if again != "" {
						set = again
					}
				}
				if got.String() != tt.want {
					t.Errorf("visits went %q, want %q", got.String(), tt.want)
				}
			})
		})
	}
}

func TestCookieOfAReplicaWhoseClockIsAhead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ahead time.Duration
		want  affinity.Status
	}{
		{30 * time.Second, affinity.Hit},
		{time.Hour, affinity.Expired},
	} {
		c := &affinity.Cookie{Secrets: testSecrets, Idle: time.Minute}
		var value string
		synctest.Test(t, func(t *testing.T) { // each bubble has its own clock
			time.Sleep(tt.ahead)
			value, _, _ = strings.Cut(bind(t, c, get("/"), affinity.Pin{}, "b1").Get("Set-Cookie"), ";")
		})
		synctest.Test(t, func(t *testing.T) {
			if found := find(t, c, get("/", value)); found.Status != tt.want {
				t.Errorf("sealed %v ahead: Find = %+v, want %v", tt.ahead, found, tt.want)
			}
		})
	}
}

func TestCookieLeavesCacheableAnswersAlone(t *testing.T) {
	t.Parallel()
	c := &affinity.Cookie{Secrets: testSecrets}
	for _, tt := range []struct {
		name         string
		found        affinity.Pin
		own, want    []string
		wantsACookie bool
	}{
		{"sets a cookie", affinity.Pin{}, nil, []string{"private, no-store"}, true},
		{"sets a cookie, has its own", affinity.Pin{}, []string{"max-age=5"}, []string{"max-age=5"}, true},
		{"sets no cookie", affinity.Pin{Backend: "b1", Status: affinity.Hit}, nil, nil, false},
	} {
		res := &http.Response{Header: http.Header{}, Request: get("/")}
		if tt.own != nil {
			res.Header["Cache-Control"] = tt.own
		}
		if _, err := c.Bind(to("b1", res, tt.found)); err != nil {
			t.Fatal(err)
		}
		if got := res.Header["Cache-Control"]; !slices.Equal(got, tt.want) {
			t.Errorf("%s: Cache-Control = %q, want %q", tt.name, got, tt.want)
		}
		if got := res.Header.Get("Set-Cookie") != ""; got != tt.wantsACookie {
			t.Errorf("%s: Set-Cookie = %q", tt.name, res.Header["Set-Cookie"])
		}
	}
}

// What a backend sets for the cookie counts only with Preserve.
func TestCookieSetByTheBackend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		preserve bool
		hit      bool
		set      []string
		want     []string // with LIMPET for Limpet's own
	}{
		{"taken off", false, true, []string{"a=1", "limpet=x", "b=2", "__Host-limpet=; Max-Age=0"}, []string{"a=1", "b=2"}},
		{"all that there is", false, true, []string{"limpet=x"}, nil},
		{"replaced", false, false, []string{"limpet=x; Path=/", "a=1"}, []string{"a=1", "LIMPET"}},
		{"like ours", false, true, []string{"xlimpet=1", "Limpet=2", "a=limpet=3", "b; limpet=4"}, []string{"xlimpet=1", "Limpet=2", "a=limpet=3", "b; limpet=4"}},
		{"preserved", true, false, []string{"a=1", "limpet=; Max-Age=0"}, []string{"a=1", "limpet=; Max-Age=0"}},
		{"preserved under the other name", true, false, []string{"__Host-limpet=; Max-Age=0"}, []string{"__Host-limpet=; Max-Age=0"}},
		{"nothing to preserve", true, false, []string{"a=1"}, []string{"a=1", "LIMPET"}},
	} {
		c := &affinity.Cookie{Secrets: testSecrets, Preserve: tt.preserve}
		found := affinity.Pin{Key: "k"}
		if tt.hit {
			found = affinity.Pin{Backend: "b1", Key: "k", Status: affinity.Hit}
		}
		set, key := setCookies(t, c, get("/"), found, "b1", tt.set...)
		for i, line := range set {
			if cookie, _, _ := strings.Cut(line, ";"); find(t, c, get("/", cookie)).Backend == "b1" {
				set[i] = "LIMPET"
			}
		}
		if !slices.Equal(set, tt.want) || key != "k" {
			t.Errorf("%s: Set-Cookie = %q, want %q; key %q", tt.name, set, tt.want, key)
		}
	}
}

func TestCookiePostOnly(t *testing.T) {
	t.Parallel()
	c := &affinity.Cookie{Secrets: testSecrets, PostOnly: true}
	for method, want := range map[string]bool{"GET": false, "HEAD": false, "PUT": false, "POST": true} {
		r := get("/")
		r.Method = method
		h := bind(t, c, r, affinity.Pin{}, "b1")
		if got := h.Get("Set-Cookie") != ""; got != want || (h.Get("Cache-Control") != "") != want {
			t.Errorf("%s: header %v", method, h)
		}
		if _, key := setCookies(t, c, r, affinity.Pin{}, "b1"); (key != "") != want {
			t.Errorf("%s: key %q", method, key)
		}
	}
}

// The methods of http.Cookie would know only the attributes: Valid would find no
// fault with the other fields of a Cookie, and String would print it as "x=y".
func TestCookieIsNoHTTPCookie(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Valid", "String"} {
		if _, ok := reflect.TypeFor[*affinity.Cookie]().MethodByName(name); ok {
			t.Errorf("a Cookie has the method %s of an http.Cookie", name)
		}
	}
}

func TestCookieValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cookie *affinity.Cookie
		want   string
	}{
		{"short key", &affinity.Cookie{Secrets: [][]byte{testSecrets[0], []byte("hidden")}}, "secret 1 has 6 bytes"},
		{"name", &affinity.Cookie{Cookie: http.Cookie{Name: "a b"}}, "Name"},
		{"path", &affinity.Cookie{Cookie: http.Cookie{Path: "/;"}}, "Path"},
		{"domain", &affinity.Cookie{Cookie: http.Cookie{Domain: "a..b"}}, "Domain"},
		{"deletion", &affinity.Cookie{Cookie: http.Cookie{MaxAge: -1}}, "MaxAge"},
		{"prefix and domain", &affinity.Cookie{Cookie: http.Cookie{Name: "__Host-a", Domain: "a.example"}}, "__Host-"},
		{"prefix and path", &affinity.Cookie{Cookie: http.Cookie{Name: "__host-a", Path: "/a"}}, "__Host-"},
		{"negative lifetime", &affinity.Cookie{Idle: -time.Second}, "lifetime"},
		{"split second", &affinity.Cookie{Age: 1500 * time.Millisecond}, "whole seconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.cookie.Logger = slog.New(slog.DiscardHandler)
			err := tt.cookie.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("Validate = %v, want an error with %q", err, tt.want)
			}
			// It must do no harm if it is used nevertheless.
			found, findErr := tt.cookie.Find(get("/", "limpet=x"))
			res := &http.Response{Header: http.Header{}, Request: get("/")}
			_, bindErr := tt.cookie.Bind(to("b1", res, found))
			if findErr == nil || bindErr == nil || found != (affinity.Pin{}) || len(res.Header) > 0 {
				t.Errorf("Find = %+v, %v, Bind = %v, %v", found, findErr, res.Header, bindErr)
			}
		})
	}
}

func TestCookieRefusesAnIDThatIsTooLong(t *testing.T) {
	t.Parallel()
	c := &affinity.Cookie{Secrets: testSecrets}
	res := &http.Response{Header: http.Header{}, Request: get("/")}
	if _, err := c.Bind(to(strings.Repeat("b", 2000), res, affinity.Pin{})); err == nil || len(res.Header) > 0 {
		t.Errorf("Bind = %v, header %v", err, res.Header)
	}
}

func TestCookieRewrite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		in, want []string
	}{
		{"nothing of ours", []string{"a=1;b=2 ; c", "", " d"}, []string{"a=1;b=2 ; c", "", " d"}},
		{"alone", []string{"limpet=x"}, nil},
		{"alone with odd space", []string{" \tlimpet = x ; "}, nil},
		{"first", []string{"limpet=x; a=1;b=2"}, []string{"a=1;b=2"}},
		{"between", []string{"a=1;  limpet=x;b=2"}, []string{"a=1;b=2"}},
		{"last", []string{"a=1; limpet=x"}, []string{"a=1"}},
		{"both names, twice", []string{"limpet=x; a=1; __Host-limpet=y; limpet=z; b=2; __Host-limpet="}, []string{"a=1; b=2"}},
		{"several lines", []string{"a=1", "limpet=x", "b=2; limpet=y", ""}, []string{"a=1", "b=2", ""}},
		{"odd cookies stay", []string{`;; a="x, y" ;limpet=x;=; ;b`}, []string{`;; a="x, y" ;=; ;b`}},
		{"like ours", []string{"xlimpet=1; limpetx=2; limpet; Limpet=3; a=limpet=4"}, []string{"xlimpet=1; limpetx=2; limpet; Limpet=3; a=limpet=4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &affinity.Cookie{Secrets: testSecrets}
			shared := slices.Clone(tt.in)
			out := get("/", shared...)
			c.Rewrite(out, affinity.Pin{})
			if got, ok := out.Header["Cookie"]; !slices.Equal(got, tt.want) || ok != (tt.want != nil) {
				t.Errorf("Cookie = %q, want %q", got, tt.want)
			}
			if !slices.Equal(shared, tt.in) {
				t.Errorf("the client's own slice became %q", shared)
			}
			kept := get("/", tt.in...)
			(&affinity.Cookie{Secrets: testSecrets, Keep: true}).Rewrite(kept, affinity.Pin{})
			if got := kept.Header["Cookie"]; !slices.Equal(got, tt.in) {
				t.Errorf("with Keep, Cookie = %q", got)
			}
		})
	}
}

// A cookie that an older secret has sealed is opened and issued anew, so that
// the older secret can be removed.
func TestCookieRotation(t *testing.T) {
	t.Parallel()
	one, two := []byte("one of two keys, 32 bytes in all"), []byte("the other one, of 32 bytes, too.")
	before := &affinity.Cookie{Secrets: [][]byte{one, two}}
	after := &affinity.Cookie{Secrets: [][]byte{two, one}}
	done := &affinity.Cookie{Secrets: [][]byte{two}}
	value := func(h http.Header) string {
		set, _, _ := strings.Cut(h.Get("Set-Cookie"), ";")
		return set
	}

	r := get("/")
	r = get("/", value(bind(t, before, r, find(t, before, r), "b1")))
	old := find(t, after, r)
	if old.Backend != "b1" || old.Status != affinity.Hit {
		t.Fatalf("Find = %+v, want a hit on b1", old)
	}
	r = get("/", value(bind(t, after, r, old, "b1")))
	if anew := find(t, done, r); anew.Backend != "b1" || anew.Key != old.Key {
		t.Errorf("without the old key Find = %+v, want b1 and key %q", anew, old.Key)
	}
	if h := bind(t, after, r, find(t, after, r), "b1"); len(h) > 0 {
		t.Errorf("issued once more: %v", h)
	}
}
