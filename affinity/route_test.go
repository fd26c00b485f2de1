package affinity_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

func TestRouteFind(t *testing.T) {
	t.Parallel()
	keyOf := func(session string) string {
		return find(t, &affinity.Route{Cookie: "id", Separator: "~"}, get("/", "id="+session+"~b1")).Key
	}
	session := keyOf("abc")
	const addr = "192.0.2.1/32" // of all requests of package httptest
	if session == "" || strings.Contains(session, "abc") || session == addr {
		t.Fatalf("the key of a session is %q", session)
	}
	java := &affinity.Route{Cookie: "JSESSIONID", Param: "jsessionid"}
	mapped := &affinity.Route{Cookie: "id", Backends: map[string]string{"1": "b1", "r.2": "b2"}}
	whole := &affinity.Route{Cookie: "id", Whole: true}
	byAddr := &affinity.Route{Cookie: "id", Client: &affinity.ClientAddr{V4: 24}}
	hit := func(home, key string) affinity.Pin {
		return affinity.Pin{Backend: home, Key: key, Status: affinity.Hit}
	}
	unknown := func(key string) affinity.Pin { return affinity.Pin{Key: key, Status: affinity.Unknown} }

	for _, tt := range []struct {
		name    string
		route   *affinity.Route
		url     string
		cookies []string
		want    affinity.Pin
	}{
		{"nothing", java, "/chat?a=1", []string{"a=1"}, affinity.Pin{}},
		{"cookie", java, "/", []string{"a=1; JSESSIONID=abc.b1"}, hit("b1", session)},
		{"in quotes", java, "/", []string{`JSESSIONID="abc.b1"`}, hit("b1", session)},
		{"on the second line", java, "/", []string{"a=1", "JSESSIONID=abc.b1"}, hit("b1", session)},
		{"no route yet", java, "/", []string{"JSESSIONID=abc"}, affinity.Pin{Key: session}},
		{"empty route", java, "/", []string{"JSESSIONID=abc."}, affinity.Pin{Key: session}},
		{"no session", java, "/", []string{"JSESSIONID=.b1"}, hit("b1", addr)},
		{"empty", java, "/", []string{"JSESSIONID=; JSESSIONID=."}, affinity.Pin{Key: addr}},
		{"dots in an ID", java, "/", []string{"JSESSIONID=abc.node.1"}, hit("node.1", session)},
		{"no ID", java, "/", []string{"JSESSIONID=abc.b/1"}, unknown(session)},
		{"too long for an ID", java, "/", []string{"JSESSIONID=abc." + strings.Repeat("b", 65)}, unknown(session)},
		{"behind no route", java, "/", []string{"JSESSIONID=x; JSESSIONID=abc.b1"}, hit("b1", session)},
		{"behind an unknown one", java, "/", []string{"JSESSIONID=x./; JSESSIONID=abc.b1"}, hit("b1", session)},
		{"no route behind an unknown one", java, "/", []string{"JSESSIONID=abc./; JSESSIONID=x"}, unknown(session)},

		{"an unknown one behind no route", java, "/", []string{"JSESSIONID=x; JSESSIONID=abc./"}, unknown(session)},
		{"two unknown ones", java, "/", []string{"JSESSIONID=abc./; JSESSIONID=x./"}, unknown(session)},
		{"an ID behind a later separator", java, "/", []string{"JSESSIONID=abc.b/1.b1"}, unknown(session)},

		{"path parameter", java, "/chat;jsessionid=abc.b1", nil, hit("b1", session)},
		{"among others", java, "/chat;a=1;jsessionid=abc.b1;b=2?c=3", nil, hit("b1", session)},
		{"of an inner segment", java, "/chat;jsessionid=abc.b1/room;x", nil, hit("b1", session)},
		{"escaped", java, "/chat;jsessionid=%61bc%2Eb1", nil, hit("b1", session)},
		{"badly escaped", java, "/chat?jsessionid=abc%2.b1", nil, hit("b1", keyOf("abc%2"))},
		{"an escaped semicolon", java, "/chat%3Bjsessionid=abc.b1", nil, affinity.Pin{}},
		{"another case", java, "/chat;JSESSIONID=abc.b1;xjsessionid=abc.b1", nil, affinity.Pin{}},
		{"the first that isn't empty", java, "/chat;jsessionid;jsessionid=;jsessionid=abc.b1", nil, hit("b1", session)},
		{"query parameter", java, "/chat?a=1&jsessionid=abc.b1", nil, hit("b1", session)},
		{"query behind a path with others", java, "/chat;a=1?jsessionid=abc.b1", nil, hit("b1", session)},
		{"path before query", java, "/chat;jsessionid=abc.b1?jsessionid=abc.b2", nil, hit("b1", session)},
		{"cookie before path", java, "/chat;jsessionid=x.b2", []string{"JSESSIONID=abc.b1"}, hit("b1", session)},
		{"path behind a cookie without route", java, "/chat;jsessionid=abc.b1", []string{"JSESSIONID=x"}, hit("b1", session)},
		{"path alone", &affinity.Route{Param: "jsessionid"}, "/chat;jsessionid=abc.b1", []string{"jsessionid=abc.b2"}, hit("b1", session)},

		{"mapped", mapped, "/", []string{"id=abc.1"}, hit("b1", session)},
		{"mapped, with a separator", mapped, "/", []string{"id=abc.r.2"}, hit("b2", session)},
		{"mapped, not the ID", mapped, "/", []string{"id=abc.b1"}, unknown(session)},
		{"separators in the session", mapped, "/", []string{"id=s.abc.9.1"}, hit("b1", keyOf("s.abc.9"))},

		{"whole", whole, "/", []string{"id=b1"}, hit("b1", addr)},
		{"whole, with a separator", whole, "/", []string{"id=node.1"}, hit("node.1", addr)},
		{"whole, unknown", whole, "/", []string{"id=b 1"}, unknown(addr)},
		{"other separator", &affinity.Route{Cookie: "id", Separator: "~"}, "/", []string{"id=abc~node.1"}, hit("node.1", session)},
		{"own key", byAddr, "/", []string{"id=abc.b1"}, hit("b1", "192.0.2.0/24")},
		{"set by Limpet", &affinity.Route{Cookie: "id", Set: &http.Cookie{Value: "sticky"}}, "/", []string{"id=sticky.b1"}, hit("b1", addr)},
		{"no name", &affinity.Route{}, "/?=1", []string{"=a.b"}, affinity.Pin{}},
	} {
		found := find(t, tt.route, get(tt.url, tt.cookies...))
		if found != tt.want {
			t.Errorf("%s: Find = %+v, want %+v", tt.name, found, tt.want)
		}
	}
}

func TestRouteSet(t *testing.T) {
	t.Parallel()
	apache := &affinity.Route{Cookie: "ROUTEID", Set: &http.Cookie{}, Backends: map[string]string{"2": "b2", "1": "b1", "one": "b1"}}
	for _, tt := range []struct {
		name   string
		route  *affinity.Route
		cookie string
		home   string
		want   string // Set-Cookie
	}{
		{"a new client", apache, "", "b1", "ROUTEID=.1; Path=/"},
		{"a client at home", apache, "ROUTEID=.1", "b1", ""},
		{"by another route of its home", apache, "ROUTEID=.one", "b1", ""},
		{"a moved client", apache, "ROUTEID=.1", "b2", "ROUTEID=.2; Path=/"},
		{"an unknown route", apache, "ROUTEID=.3", "b1", "ROUTEID=.1; Path=/"},
		{"no route", apache, "ROUTEID=x", "b1", "ROUTEID=.1; Path=/"},
		{"no home", apache, "", "", ""},
		{"something before the route", &affinity.Route{Cookie: "SERVERID", Set: &http.Cookie{Value: "sticky", Path: "/chat", HttpOnly: true, MaxAge: 60}},
			"", "app01", "SERVERID=sticky.app01; Path=/chat; Max-Age=60; HttpOnly"},
		{"another separator", &affinity.Route{Cookie: "id", Separator: "!", Set: &http.Cookie{Value: "x", Secure: true, SameSite: http.SameSiteNoneMode}},
			"id=x!b2", "b1", "id=x!b1; Path=/; Secure; SameSite=None"},
		{"the whole value", &affinity.Route{Cookie: "srv_id", Whole: true, Set: &http.Cookie{Domain: ".a.example"}},
			"", "node.1", "srv_id=node.1; Path=/; Domain=a.example"},
	} {
		if err := tt.route.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		r := get("/", tt.cookie)
		found := find(t, tt.route, r)
		res := &http.Response{Header: http.Header{"Set-Cookie": {"a=1"}}, Request: r}
		key, err := tt.route.Bind(to(tt.home, res, found))
		want, guard := []string{"a=1"}, ""
		if tt.want != "" {
			want, guard = append(want, tt.want), "private, no-store"
		}
		if got := res.Header["Set-Cookie"]; err != nil || !slices.Equal(got, want) || res.Header.Get("Cache-Control") != guard {
			t.Errorf("%s: Set-Cookie = %q, want %q; Cache-Control = %q, %v", tt.name, got, want, res.Header["Cache-Control"], err)
		}
		if tt.want != "" {
			mark, _, _ := strings.Cut(tt.want, ";")
			if now := find(t, tt.route, get("/", mark)); now.Backend != tt.home || now.Key != key {
				t.Errorf("%s: next time Find = %+v, and Bind returned the key %q", tt.name, now, key)
			}
		}
	}

	res := &http.Response{Header: http.Header{}, Request: get("/")}
	if _, err := apache.Bind(to("b9", res, affinity.Pin{})); err == nil || !strings.Contains(err.Error(), `"b9"`) || len(res.Header) > 0 {
		t.Errorf("bound to a backend without a route: %v, %v", err, res.Header)
	}
}

func TestRouteOfTheApplication(t *testing.T) {
	t.Parallel()
	java := &affinity.Route{Cookie: "JSESSIONID", Param: "jsessionid"}
	for _, tt := range []struct {
		name, set string
		same      string // the cookie whose key Bind must return
	}{
		{"nothing", "a=1", "JSESSIONID=old.b1"},
		{"a session", "JSESSIONID=abc.b1; Path=/; HttpOnly", "JSESSIONID=abc.b1"},
		{"the session with another route", "JSESSIONID=old.b2", "JSESSIONID=old.b1"},
		{"deletion", "JSESSIONID=abc.b1; Max-Age=0", "JSESSIONID=old.b1"},
		{"empty", "JSESSIONID=", "JSESSIONID=old.b1"},
	} {
		r := get("/", "JSESSIONID=old.b1")
		set, key := setCookies(t, java, r, find(t, java, r), "b2", tt.set)
		if !slices.Equal(set, []string{tt.set}) {
			t.Errorf("%s: Set-Cookie = %q", tt.name, set)
		}
		if want := find(t, java, get("/", tt.same)).Key; key != want {
			t.Errorf("%s: Bind returned the key %q, want %q", tt.name, key, want)
		}
	}
	param := &affinity.Route{Param: "jsessionid"}
	if _, key := setCookies(t, param, get("/"), affinity.Pin{Key: "k"}, "b2", "=abc.b1"); key != "k" {
		t.Errorf("without a cookie, Bind returned the key %q", key)
	}
}

func TestRouteTrust(t *testing.T) {
	t.Parallel()
	trusted := func(*http.Request) netip.Addr { return netip.MustParseAddr("198.51.100.1") }
	for want, route := range map[string]*affinity.Route{
		"198.51.100.1/32": {Cookie: "id"},
		"198.51.100.0/24": {Cookie: "id", Client: &affinity.ClientAddr{V4: 24}},
	} {
		route.Trust(trusted, nil)
		if found := find(t, route, get("/", "id=.b1")); found.Key != want {
			t.Errorf("key = %q, want %q", found.Key, want)
		}
	}
}

func TestRouteValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		route *affinity.Route
		want  string // "" if it is good
	}{
		{"nowhere to look", &affinity.Route{}, "neither"},
		{"bad name", &affinity.Route{Cookie: "a b"}, "Name"},
		{"set without a name", &affinity.Route{Param: "id", Set: &http.Cookie{}}, "no name"},
		{"separator and whole", &affinity.Route{Cookie: "id", Whole: true, Separator: "-"}, "Whole"},
		{"value and whole", &affinity.Route{Cookie: "id", Whole: true, Set: &http.Cookie{Value: "x."}}, "Whole"},
		{"separator in the value", &affinity.Route{Cookie: "id", Set: &http.Cookie{Value: "a.b"}}, "separator"},
		{"bad value", &affinity.Route{Cookie: "id", Set: &http.Cookie{Value: "a;b"}}, "Value"},
		{"bad separator", &affinity.Route{Cookie: "id", Separator: ";"}, "Value"},
		{"deletion", &affinity.Route{Cookie: "id", Set: &http.Cookie{MaxAge: -1}}, "MaxAge"},
		{"bad route", &affinity.Route{Cookie: "id", Backends: map[string]string{"": "b1"}}, `""`},
		{"bad key", &affinity.Route{Cookie: "id", Client: &affinity.ClientAddr{V4: 33}}, "/33"},
		{"parameter alone", &affinity.Route{Param: "id"}, ""},
		{"all", &affinity.Route{Cookie: "id", Param: "id", Backends: map[string]string{"1": "b1"}, Client: &affinity.ClientAddr{}}, ""},
	} {
		err := tt.route.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Validate = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// For any URL, the route is an ID behind the first separator in the first parameter
// of the name that isn't empty.
func FuzzRoutePath(f *testing.F) {
	f.Add("/chat;id=abc.b1")
	f.Add("/;a=1;id=;id=%2eb1/x;id=b.2")
	f.Add("/;id/;;id==.b1;id=%zz.b1;id=a%2")
	f.Add("/a;id=x.;id=x.y")
	route := &affinity.Route{Param: "id"}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") || u.RawQuery != "" {
			t.Skip("no path that a server would take")
		}
		r := get("/")
		r.URL = u
		want := affinity.Pin{}
		// The same in a simpler way: segments, and parameters behind the first part of each.
	search:
		for _, segment := range strings.Split(u.EscapedPath(), "/") {
			for _, param := range strings.Split(segment, ";")[1:] {
				value, ok := strings.CutPrefix(param, "id=")
				if !ok || value == "" {
					continue
				}
				if un, err := url.PathUnescape(value); err == nil {
					value = un
				}
				if _, id, ok := strings.Cut(value, "."); ok && id != "" {
					want.Status = affinity.Unknown
					if isID(id) {
						want.Backend, want.Status = id, affinity.Hit
					}
				}
				break search
			}
		}
		found := find(t, route, r)
		if found.Backend != want.Backend || found.Status != want.Status {
			t.Errorf("Find(%q) = %+v, want %+v", path, found, want)
		}
	})
}

// The same for the cookie, all of whose values are looked at.
func FuzzRouteCookie(f *testing.F) {
	f.Add("id=abc.b1")
	f.Add(`id=x; id="abc.b1"; id=.b2`)
	f.Add("id=...; id=a.; id; =id=.b1")
	f.Add("id=abc.b/1; id=abc.x.1")
	mapped := &affinity.Route{Cookie: "id", Backends: map[string]string{"b1": "b1", "x.1": "b2", "1": "b3"}}
	f.Fuzz(func(t *testing.T, line string) {
		want := affinity.Pin{}
		tries := 0
		for _, part := range parts(line) {
			name, value, ok := strings.Cut(part, "=")
			if !ok || trim(name) != "id" {
				continue
			}
			if tries++; tries > 8 {
				break
			}
			value = trim(value)
			if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			for i := range value {
				if value[i] != '.' || i+1 == len(value) {
					continue
				}
				if want.Status == affinity.None {
					want.Status = affinity.Unknown
				}
				if home := mapped.Backends[value[i+1:]]; home != "" {
					want.Backend, want.Status = home, affinity.Hit
					break
				}
			}
			if want.Status == affinity.Hit {
				break
			}
		}
		found := find(t, mapped, get("/", line))
		if found.Backend != want.Backend || found.Status != want.Status {
			t.Errorf("Find(%q) = %+v, want %+v", line, found, want)
		}
	})
}
