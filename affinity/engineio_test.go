package affinity_test

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/limpet-go/limpet/affinity"
)

// openings are answers of nodes to the first request of a session. Its sid is s1,
// and %s stands where its tag goes.
var openings = []struct{ name, eio, body string }{
	{"version 4", "4", `0{"sid":"s1%s","upgrades":["websocket"],"pingInterval":25000,"maxPayload":1000000}`},
	{"version 4 with a message", "4", "0{\"sid\":\"s1%s\"}\x1e4hello"},
	{"sid last", "4", `0{"upgrades":["websocket",{"sid":"no"}],"n":1.5e3,"sid":"s1%s"}`},
	{"white space", "4", `0{ "sid" : "s1%s" }`},
	{"version 3", "3", `96:0{"sid":"s1%s","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":5000}2:40`},
	{"version 3 with a message", "3", `13:0{"sid":"s1%s"}6:4äöü🐚`},
	{"version 3, binary", "3", "\x00\x01\x03\xff0{\"sid\":\"s1%s\"}\x01\x03\xff\x04\x01\x02"},
	{"version 3, JSONP", "3", `___eio[12]("13:0{\"sid\":\"s1%s\"}2:40");`},
	{"version 3, JSONP with escapes", "3", `___eio[0]("25:0{\"a\":\"\u00e4\/\\n\",\"\u0073id\":\"\u00731%s\"}2:40");`},
	{"version 4, JSONP", "4", `___eio[0]("0{\"sid\":\"s1%s\"}");`},
}

// tagged returns the body of an opening with a tag behind its sid. In version 3 the
// length of the packet changes too.
func tagged(body, tag string) string {
	for old, long := range map[string]string{
		"96:0": strconv.Itoa(96+len(tag)) + ":0", "13:0": strconv.Itoa(13+len(tag)) + ":0", "25:0": strconv.Itoa(25+len(tag)) + ":0",
		"\x01\x03\xff0": "\x03\x08\xff0", // 13 and 25 are 38
	} {
		body = strings.Replace(body, old, long, 1)
	}
	return strings.Replace(body, "%s", tag, 1)
}

// answer is a node's answer to r.
func answer(r *http.Request, body io.Reader, length int) *http.Response {
	res := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body), ContentLength: int64(length), Request: r}
	if length >= 0 {
		res.Header.Set("Content-Length", strconv.Itoa(length))
	}
	return res
}

// bound returns the body of an answer after Bind, which must not fail.
func bound(tb testing.TB, a affinity.Affinity, res *http.Response, home string) string {
	tb.Helper()
	if _, err := a.Bind(to(home, res, find(tb, a, res.Request))); err != nil {
		tb.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return string(body)
}

const eio4, eio3 = "/socket.io/?EIO=4&transport=polling", "/socket.io/?EIO=3&transport=polling"

func opens(eio string) *http.Request { return get("/socket.io/?EIO=" + eio + "&transport=polling") }

func polls(eio, sid string) *http.Request {
	return get("/socket.io/?EIO=" + eio + "&transport=polling&t=N8hyd6w&sid=" + sid)
}

// tagOf returns the tag, with its dot, that a session s1 of this home gets.
func tagOf(tb testing.TB, e *affinity.EngineIO, home string) string {
	tb.Helper()
	body := bound(tb, e, answer(opens("4"), strings.NewReader(`0{"sid":"s1"}`), 13), home)
	return strings.TrimSuffix(strings.TrimPrefix(body, `0{"sid":"s1`), `"}`)
}

// arrivals are the ways in which a body can arrive.
var arrivals = map[string]func(io.Reader) io.Reader{
	"at once":        func(r io.Reader) io.Reader { return r },
	"end with data":  iotest.DataErrReader,
	"byte by byte":   iotest.OneByteReader,
	"half by half":   iotest.HalfReader,
	"and breaks off": func(r io.Reader) io.Reader { return &once{r: r} },
}

// once returns an error together with its last bytes, and io.EOF from then on.
type once struct {
	r    io.Reader
	done bool
}

func (o *once) Read(b []byte) (int, error) {
	if o.done {
		return 0, io.EOF
	}
	n, err := io.ReadFull(o.r, b)
	if err != nil {
		o.done, err = true, errBroken
	}
	return n, err
}

var errBroken = errors.New("connection reset")

func TestEngineIOTags(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets, Mode: affinity.SIDModeTag}
	tag := tagOf(t, e, "b1")
	if len(tag) != 25 || tag[0] != '.' {
		t.Fatalf("tag %q", tag)
	}
	for _, tt := range openings {
		sent, want := strings.Replace(tt.body, "%s", "", 1), tagged(tt.body, tag)
		for arrival, through := range arrivals {
			for _, length := range []int{len(sent), -1} {
				res := answer(opens(tt.eio), through(strings.NewReader(sent)), length)
				key, err := e.Bind(to("b1", res, find(t, e, res.Request)))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if string(body) != want || err != nil && !errors.Is(err, errBroken) {
					t.Errorf("%s, %s: body %q, %v\nwant %q", tt.name, arrival, body, err, want)
				}
				said := res.Header.Get("Content-Length")
				if length >= 0 && (res.ContentLength != int64(len(want)) || said != strconv.Itoa(len(want))) ||
					length < 0 && (res.ContentLength != -1 || said != "") {
					t.Errorf("%s, %s: length %d, %q, want %d", tt.name, arrival, res.ContentLength, said, len(want))
				}
				found := find(t, e, polls(tt.eio, "s1"+tag))
				found.Note = nil
				if want := (affinity.Pin{Backend: "b1", Key: key, Status: affinity.Hit, Fixed: true}); found != want || key == "" {
					t.Errorf("%s: Find = %+v, want %+v", tt.name, found, want)
				}
			}
		}
	}
}

func TestEngineIOLearns(t *testing.T) {
	t.Parallel()
	for _, tt := range openings {
		for arrival, through := range arrivals {
			e := &affinity.EngineIO{Mode: affinity.SIDModeLearn}
			if found := find(t, e, polls(tt.eio, "s1")); found.Status != affinity.Unknown || found.Backend != "" || found.Key != "" {
				t.Errorf("before: %+v", found)
			}
			sent := strings.Replace(tt.body, "%s", "", 1)
			res := answer(opens(tt.eio), through(strings.NewReader(sent)), len(sent))
			key, err := e.Bind(to("b1", res, find(t, e, res.Request)))
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(res.Body); string(body) != sent || res.ContentLength != int64(len(sent)) {
				t.Errorf("%s, %s: body %q", tt.name, arrival, body)
			}
			found := find(t, e, polls(tt.eio, "s1"))
			found.Note = nil
			if want := (affinity.Pin{Backend: "b1", Key: key, Status: affinity.Hit, Fixed: true}); found != want || key == "" {
				t.Errorf("%s, %s: Find = %+v, want %+v", tt.name, arrival, found, want)
			}
		}
	}
}

// By default the version of the protocol decides.
func TestEngineIOModeByVersion(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	for _, tt := range []struct {
		eio  string
		tags bool
	}{{"4", true}, {"3", false}, {"2", false}} {
		body := bound(t, e, answer(opens(tt.eio), strings.NewReader(`0{"sid":"s1"}`), -1), "b1")
		if tags := body != `0{"sid":"s1"}`; tags != tt.tags {
			t.Errorf("EIO=%s: %q", tt.eio, body)
		}
	}
}

// An application that makes its own sids may repeat one on another node.
func TestEngineIOLearnsASecondTime(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{}
	for _, home := range []string{"b1", "b2"} {
		bound(t, e, answer(opens("3"), strings.NewReader(`13:0{"sid":"s1"}`), -1), home)
		if found := find(t, e, polls("3", "s1")); found.Backend != home {
			t.Errorf("Find = %+v, want %s", found, home)
		}
	}
}

func TestEngineIOLeavesAlone(t *testing.T) {
	t.Parallel()
	opening := `0{"sid":"s1"}`
	post := opens("4")
	post.Method = "POST"
	for _, tt := range []struct {
		name string
		r    *http.Request
		body string
	}{
		{"a poll", polls("4", "s1"), opening},
		{"a POST", post, opening},
		{"a WebSocket", get("/socket.io/?EIO=4&transport=websocket"), opening},
		{"no EIO", get("/socket.io/?transport=polling"), opening},
		{"another path", get("/engine.io/?EIO=4&transport=polling"), opening},
		{"nothing", opens("4"), ""},
		{"half an opening", opens("4"), `0{"sid":"s`},
		{"half of JSONP", opens("4"), `___eio[0]("0{\"sid\":\"s\u00`},
		{"JSONP that ends", opens("4"), `___eio[0]("0{\"sid");`},
		{"no sid", opens("4"), `0{"upgrades":[]}`},
		{"empty sid", opens("4"), `0{"sid":""}`},
		{"sid a number", opens("4"), `0{"sid":1}`},
		{"sid within", opens("4"), `0{"a":{"sid":"s1"}}`},
		{"bad JSON", opens("4"), `0{"sid"="s1"}`},
		{"another packet", opens("4"), `4{"sid":"s1"}`},
		{"a length without end", opens("4"), `1234567:0{"sid":"s1"}`},
		{"no length", opens("4"), `:0{"sid":"s1"}`},
		{"a page", opens("4"), "<!DOCTYPE html>" + opening},
		{"sid too long", opens("4"), `0{"sid":"` + strings.Repeat("s", 1025) + `"}`},
		{"sid too late", opens("4"), `0{"a":"` + strings.Repeat("a", 5000) + `","sid":"s1"}`},
		{"large and binary", opens("4"), strings.Repeat("\x00\xff", 10_000)},
	} {
		e := &affinity.EngineIO{Secrets: testSecrets, Path: "/socket.io/"}
		for arrival, through := range arrivals {
			res := answer(tt.r, through(strings.NewReader(tt.body)), len(tt.body))
			if _, err := e.Bind(to("b1", res, find(t, e, tt.r))); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			body, err := io.ReadAll(res.Body)
			if string(body) != tt.body || res.ContentLength != int64(len(tt.body)) {
				t.Errorf("%s, %s: %d bytes %.40q became %d %.40q", tt.name, arrival, len(tt.body), tt.body, len(body), body)
			}
			if broken := arrival == "and breaks off"; broken != errors.Is(err, errBroken) {
				t.Errorf("%s, %s: %v", tt.name, arrival, err)
			}
		}
	}
}

// Bind refuses a compressed answer, which it can't read and Rewrite didn't ask for.
func TestEngineIOAsksForPlainAnswers(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	for url, kept := range map[string]bool{
		eio4: false, eio3: false, eio4 + "&sid=s1": true, "/socket.io/?EIO=4&transport=websocket": true, "/": true,
	} {
		r, out := get(url), get(url)
		out.Header.Set("Accept-Encoding", "gzip")
		if e.Rewrite(out, find(t, e, r)); (out.Header.Get("Accept-Encoding") != "") != kept {
			t.Errorf("%s: %v", url, out.Header)
		}
	}
	res := answer(opens("4"), strings.NewReader("\x1f\x8b"), 2)
	res.Header.Set("Content-Encoding", "gzip")
	if _, err := e.Bind(to("b1", res, find(t, e, res.Request))); err == nil || !strings.Contains(err.Error(), `"b1"`) {
		t.Errorf("Bind = %v", err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "\x1f\x8b" {
		t.Errorf("body %q", body)
	}
}

// taggedSID is s1 with the home b1 and testSecrets. Replicas of different versions
// of Limpet must understand each other.
const taggedSID = "s1.MgICspF9JCqThP9fw77mNdhY"

func TestEngineIOSids(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	if tag := tagOf(t, e, "b1"); "s1"+tag != taggedSID {
		t.Errorf("the tag is %q now, was %q", tag, taggedSID[2:])
	}
	type row struct {
		name, sid string
		want      affinity.Status
	}
	tests := []row{
		{"genuine", taggedSID, affinity.Hit},
		{"escaped by the client", strings.ReplaceAll(strings.ReplaceAll(taggedSID, ".", "%2e"), "s", "%73"), affinity.Hit},
		{"of another session", "s2" + taggedSID[2:], affinity.Forged},
		{"no sid before it", taggedSID[2:], affinity.Unknown},
		{"twice", taggedSID + taggedSID[2:], affinity.Forged},
		{"no tag", "s1", affinity.Unknown},
		{"a dot", "s1.", affinity.Unknown},
		{"a dot of its own", "s1.x", affinity.Unknown},
		{"shorter", taggedSID[:len(taggedSID)-1], affinity.Unknown},
		{"longer", taggedSID + "A", affinity.Unknown},
		{"not base64", taggedSID[:len(taggedSID)-1] + "!", affinity.Unknown},
		{"a line break", taggedSID[:9] + "%0A" + taggedSID[9:], affinity.Unknown},
		{"very long", strings.Repeat("s", 10_000) + taggedSID, affinity.Unknown},
	}
	for i := 3; i < len(taggedSID); i++ {
		b := []byte(taggedSID)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		tests = append(tests, row{"changed", string(b), affinity.Forged})
	}
	for _, tt := range tests {
		r := polls("4", tt.sid)
		found := find(t, e, r)
		hit := tt.want == affinity.Hit
		if found.Status != tt.want || (found.Backend == "b1") != hit || (found.Key != "") != hit || found.Fixed != hit {
			t.Errorf("%s: Find(%.60q) = %+v, want %v", tt.name, tt.sid, found, tt.want)
		}
		out := r.Clone(t.Context())
		if e.Rewrite(out, found); !hit && out.URL.RawQuery != r.URL.RawQuery {
			t.Errorf("%s: %q became %q", tt.name, r.URL.RawQuery, out.URL.RawQuery)
		}
	}
}

// A genuine tag shows that a sid is Engine.IO's, even if the query lacks the other
// parameters. A sid without one may belong to any application and is ignored.
func TestEngineIOSidsWithoutVersion(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, tt := range []struct {
		name, query string
		mode        affinity.SIDMode
		path        string
		hit         bool
		want        string // what the backend gets, "" for what the client sent
	}{
		{"genuine", "sid=" + taggedSID, affinity.SIDModeTag, "", true, "sid=s1"},
		{"by version", "transport=polling&sid=" + taggedSID + "&t=1", affinity.SIDModeByVersion, "", true, "transport=polling&sid=s1&t=1"},
		{"an empty version", "EIO=&sid=" + taggedSID, affinity.SIDModeTag, "", true, "EIO=&sid=s1"},
		{"forged", "sid=s2" + taggedSID[2:], affinity.SIDModeTag, "", false, ""},
		{"without a tag", "sid=s1", affinity.SIDModeTag, "", false, ""},
		{"very long", "sid=" + strings.Repeat("s", 10_000) + taggedSID, affinity.SIDModeTag, "", false, ""},
		{"learnt", "sid=s1", affinity.SIDModeLearn, "", false, ""},
		{"of tags, but those are not in use", "sid=" + taggedSID, affinity.SIDModeLearn, "", false, ""},
		{"another path", "sid=" + taggedSID, affinity.SIDModeTag, "/engine.io/", false, ""},
	} {
		for _, shared := range []bool{false, true} {
			e := &affinity.EngineIO{Secrets: testSecrets, Mode: tt.mode, Path: tt.path}
			if shared {
				e.Store = &affinity.LRU{}
				bound(t, e, answer(opens("3"), strings.NewReader(`13:0{"sid":"s1"}`), -1), "b2")
			}
			r := get("/socket.io/?" + tt.query)
			found := find(t, e, r)
			if (found.Backend == "b1") != tt.hit || found.Fixed != tt.hit || !tt.hit && found != (affinity.Pin{}) {
				t.Errorf("%s, store %v: Find(%.60q) = %+v", tt.name, shared, tt.query, found)
			}
			out := r.Clone(ctx)
			if e.Rewrite(out, found); out.URL.RawQuery != cmp.Or(tt.want, tt.query) {
				t.Errorf("%s, store %v: %q became %q", tt.name, shared, tt.query, out.URL.RawQuery)
			}
			if gone := tt.hit && e.Gone(r, found) == nil; gone {
				t.Errorf("%s: no answer for a session whose node is gone", tt.name)
			}
		}
	}
}

// A tag shows neither the ID of the backend nor its exact length.
func TestEngineIOTagHidesTheBackend(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	for n := 1; n <= 64; n++ {
		home := strings.Repeat("node-", 13)[:n]
		tag := tagOf(t, e, home)
		if want := 1 + ((10+(n+7)/8*8)*8+5)/6; len(tag) != want {
			t.Errorf("%d bytes: a tag of %d characters, want %d", n, len(tag), want)
		}
		if found := find(t, e, polls("4", "s1"+tag)); found.Backend != home {
			t.Errorf("%q: Find = %+v", home, found)
		}
	}
	for _, home := range []string{strings.Repeat("x", 65), "a\x00"} {
		res := answer(opens("4"), strings.NewReader(`0{"sid":"s1"}`), 13)
		if _, err := e.Bind(to(home, res, find(t, e, res.Request))); err == nil {
			t.Errorf("no error for the ID %q", home)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != `0{"sid":"s1"}` {
			t.Errorf("body %q", body)
		}
	}
}

func TestEngineIOKeyRotation(t *testing.T) {
	t.Parallel()
	old, new := []byte("the old key, which opens for some time still"), []byte("the new key, which seals from the second step on")
	before := &affinity.EngineIO{Secrets: [][]byte{old}}
	during := &affinity.EngineIO{Secrets: [][]byte{new, old}}
	after := &affinity.EngineIO{Secrets: [][]byte{new}}
	first, second := "s1"+tagOf(t, before, "b1"), "s1"+tagOf(t, during, "b1")
	for _, tt := range []struct {
		e    *affinity.EngineIO
		sid  string
		want affinity.Status
	}{
		{during, first, affinity.Hit}, {after, first, affinity.Forged},
		{after, second, affinity.Hit}, {before, second, affinity.Forged},
	} {
		if found := find(t, tt.e, polls("4", tt.sid)); found.Status != tt.want {
			t.Errorf("Find = %+v, want %v", found, tt.want)
		}
	}
}

// Only the sid changes in the query.
func TestEngineIORewritesTheQuery(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	tag := strings.TrimPrefix(bound(t, e, answer(opens("4"), strings.NewReader(`0{"sid":"s 1&+"}`), -1), "b1"), `0{"sid":"s 1&+`)
	odd := "s+1%26%2b" + strings.TrimSuffix(tag, `"}`)
	for in, want := range map[string]string{
		"EIO=4&sid=" + taggedSID:                            "EIO=4&sid=s1",
		"sid=" + taggedSID + "&EIO=4&a=%zz;b&&c|":           "sid=s1&EIO=4&a=%zz;b&&c|",
		"EIO=4&s%69d=%731" + taggedSID[2:] + "&x":           "EIO=4&s%69d=%731&x",
		"EIO=4&sid=s1%2E" + taggedSID[3:]:                   "EIO=4&sid=s1",
		"EIO=4&sid=&sid=" + taggedSID + "&sid=" + taggedSID: "EIO=4&sid=&sid=s1&sid=s1",
		"EIO=4&sid=" + taggedSID + "&xsid=" + taggedSID:     "EIO=4&sid=s1&xsid=" + taggedSID,
		"EIO=4&sid=" + odd:                                  "EIO=4&sid=s+1%26%2b",
		"EIO=4&sid=" + strings.Replace(odd, ".", "%2E", 1):  "EIO=4&sid=s+1%26%2B",
		"sid=" + taggedSID:                                  "sid=s1",
	} {
		r := get("/socket.io/?" + in)
		out := r.Clone(t.Context())
		if e.Rewrite(out, find(t, e, r)); out.URL.RawQuery != want {
			t.Errorf("%q\n became %q\n   want %q", in, out.URL.RawQuery, want)
		}
	}
}

// The sessions of a client with a cookie are tagged too. Their key is that of the
// cookie, so that the client leaves a drain at one moment with all of them.
func TestEngineIOBeforeACookie(t *testing.T) {
	t.Parallel()
	cookie := &affinity.Cookie{Secrets: testSecrets}
	e := &affinity.EngineIO{Secrets: testSecrets}
	chain := affinity.Chain{e, cookie}
	value, _, _ := strings.Cut(bind(t, cookie, get("/"), affinity.Pin{}, "b1").Get("Set-Cookie"), ";")
	key := find(t, cookie, get("/", value)).Key

	r := get(eio4, value)
	if found := find(t, chain, r); found.Backend != "b1" || found.Fixed || found.Key != key {
		t.Errorf("Find = %+v, want a hit on b1 that can move", found)
	}
	body := bound(t, chain, answer(r, strings.NewReader(`0{"sid":"s1"}`), 13), "b1")
	if want := `0{"sid":"` + taggedSID + `"}`; body != want {
		t.Errorf("body %q, want %q", body, want)
	}
	r = get(eio4+"&sid="+taggedSID, value)
	found := find(t, chain, r)
	if found.Backend != "b1" || !found.Fixed || found.Key != key {
		t.Errorf("Find = %+v, want a fixed hit on b1 with the key %q", found, key)
	}
	if bound, err := chain.Bind(to("b1", answer(r, strings.NewReader("2"), 1), found)); bound != key || err != nil {
		t.Errorf("Bind = %q, %v, want %q", bound, err, key)
	}
	if chain.Gone(r, found) == nil {
		t.Error("no answer for a session that is gone")
	}
}

// A session at another backend, such as one that a stand-in has begun, doesn't move
// its client there. Otherwise two such sessions would move it back and forth. A
// client without a home gets that of its session.
func TestEngineIOLeavesACookieWhereItIs(t *testing.T) {
	t.Parallel()
	cookie := &affinity.Cookie{Secrets: testSecrets}
	chain := affinity.Chain{&affinity.EngineIO{Secrets: testSecrets}, cookie}
	value, _, _ := strings.Cut(bind(t, cookie, get("/"), affinity.Pin{}, "b2").Get("Set-Cookie"), ";")
	for cookies, want := range map[string]bool{value: false, "": true, "limpet=forged": true} {
		r := get(eio4+"&sid="+taggedSID, cookies)
		if set := bind(t, chain, r, find(t, chain, r), "b1").Get("Set-Cookie"); (set != "") != want {
			t.Errorf("with the cookie %q, Set-Cookie is %q", cookies, set)
		}
	}
}

// A session belongs to the backend that began it, even if another is the client's home.
func TestEngineIOBindsToAStandIn(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	r := opens("4")
	res := answer(nil, strings.NewReader(`0{"sid":"s1"}`), 13)
	if _, err := e.Bind(affinity.Answer{Response: res, Request: r, Found: find(t, e, r), Home: "b2", StandIn: "b1"}); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != `0{"sid":"`+taggedSID+`"}` || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
}

func TestEngineIOGone(t *testing.T) {
	t.Parallel()
	const unknown = `{"code":1,"message":"Session ID unknown"}`
	const site = "https://app.example"
	cors := func(origin string) http.Header {
		h := http.Header{"Access-Control-Allow-Origin": {origin}}
		if origin != "*" {
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Vary", "Origin")
		}
		return h
	}
	for _, tt := range []struct {
		name, url, origin, contentType, body string
		node                                 http.Header // what a node has allowed a page of that site
		cors                                 http.Header
		opens                                string // the version of a session that was opened without an Origin
	}{
		{"version 3, another site, nodes of version 3", eio3, site, "application/json", unknown, cors("*"), cors(site), "3"},
		{"version 3, no site, nodes of version 3", eio3, "", "application/json", unknown, cors("*"), cors("*"), "3"},
		{"version 3, nodes that allow nobody", eio3, site, "application/json", unknown, http.Header{}, http.Header{}, "3"},
		{"version 4 beside nodes of version 3", eio4, site, "application/json", unknown, cors("*"), http.Header{}, "3"},
		{"version 4, all sites, as far as is known", eio4, site, "application/json", unknown, cors("*"), http.Header{}, "4"},
		{"same site", eio4, "", "application/json", unknown, cors(site), http.Header{}, ""},
		{"another site, not allowed", eio4, site, "application/json", unknown, http.Header{}, http.Header{}, ""},
		{"another site, allowed", eio4, site, "application/json", unknown, cors(site), cors(site), ""},
		{"another site, one is allowed that is none of its", eio4, site, "application/json", unknown, cors("https://other.example"), http.Header{}, ""},
		{"version 3, another site", eio3, site, "application/json", unknown, cors(site), cors(site), ""},
		{"all sites", eio3, site, "application/json", unknown, cors("*"), cors("*"), ""},
		{"WebSocket", "/socket.io/?EIO=4&transport=websocket", site, "text/html", "Session ID unknown", cors(site), http.Header{}, ""},
	} {
		e := &affinity.EngineIO{Mode: affinity.SIDModeTag, Secrets: testSecrets}
		opening := opens(cmp.Or(tt.opens, "4"))
		if tt.opens == "" {
			opening.Header.Set("Origin", site)
		}
		bound := answer(nil, strings.NewReader(`0{"sid":"s2"}`), 13)
		for name, values := range tt.node {
			bound.Header[name] = values
		}
		if _, err := e.Bind(affinity.Answer{Response: bound, Request: opening, Found: find(t, e, opening), Home: "b1"}); err != nil {
			t.Fatal(err)
		}
		r := get(tt.url + "&sid=" + taggedSID)
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		found := find(t, e, r)
		res := e.Gone(r, found)
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 400 || string(body) != tt.body || res.ContentLength != int64(len(body)) || res.Request != r {
			t.Errorf("%s: %d %q", tt.name, res.StatusCode, body)
		}
		want := tt.cors
		want.Set("Content-Type", tt.contentType)
		want.Set("Content-Length", strconv.Itoa(len(body)))
		if got := res.Header; len(got) != len(want) {
			t.Errorf("%s: header %v, want %v", tt.name, got, want)
		}
		for name := range want {
			if res.Header.Get(name) != want.Get(name) {
				t.Errorf("%s: %s: %q, want %q", tt.name, name, res.Header.Get(name), want.Get(name))
			}
		}
		if r.Method = "OPTIONS"; e.Gone(r, found) != nil {
			t.Errorf("%s: a preflight can't be told", tt.name)
		}
	}
}

func TestEngineIOUnknown(t *testing.T) {
	t.Parallel()
	const unknown = `{"code":1,"message":"Session ID unknown"}`
	for _, tt := range []struct {
		name   string
		r      *http.Request
		status int
		body   string
		want   string // the status of the pin, "" if it isn't one
	}{
		{"ended", polls("4", taggedSID), 400, unknown, "hit"},
		{"forged", polls("4", "s2"+taggedSID[2:]), 400, unknown, "forged"},
		{"no tag", polls("4", "s1"), 400, unknown, "unknown"},
		{"not learnt", polls("3", "s1"), 400, `{"message":"Session ID unknown","code":1}`, "unknown"},
		{"of a WebSocket", get("/socket.io/?EIO=4&transport=websocket&sid=s1"), 400, "Session ID unknown", "unknown"},
		{"another code", polls("4", "s1"), 400, `{"code":3,"message":"Bad request"}`, ""},
		{"no code", polls("4", "s1"), 400, `{}`, ""},
		{"another status", polls("4", "s1"), 200, unknown, ""},
		{"no session", opens("4"), 400, unknown, ""},
		{"no Engine.IO", get("/?sid=s1"), 400, unknown, ""},
		{"empty", polls("4", "s1"), 400, "", ""},
		{"long", polls("4", "s1"), 400, unknown[:len(unknown)-1] + strings.Repeat(" ", 300) + "}", ""},
	} {
		e := &affinity.EngineIO{Secrets: testSecrets}
		for arrival, through := range arrivals {
			for _, length := range []int{len(tt.body), -1} {
				got := ""
				res := answer(nil, through(strings.NewReader(tt.body)), length)
				res.StatusCode = tt.status
				a := affinity.Answer{Response: res, Request: tt.r, Found: find(t, e, tt.r), Home: "b1"}
				a.UnknownSession = func(found affinity.Pin) {
					if found != a.Found {
						t.Errorf("%s: told of %+v, found %+v", tt.name, found, a.Found)
					}
					got += found.Status.String()
				}
				if _, err := e.Bind(a); err != nil {
					t.Fatal(err)
				}
				if body, _ := io.ReadAll(res.Body); string(body) != tt.body {
					t.Errorf("%s: body %q", tt.name, body)
				}
				if got != tt.want {
					t.Errorf("%s, %s: told of %q, want %q", tt.name, arrival, got, tt.want)
				}
			}
		}
	}
}

func TestEngineIOWithABrokenStore(t *testing.T) {
	t.Parallel()
	store := &brokenStore{}
	e := &affinity.EngineIO{Mode: affinity.SIDModeLearn, Store: store}
	if found, err := e.Find(polls("4", "s1")); !errors.Is(err, errStore) || found.Backend != "" || found.Fixed {
		t.Errorf("Find = %+v, %v", found, err)
	}
	res := answer(opens("4"), strings.NewReader(`0{"sid":"s1"}`), 13)
	if _, err := e.Bind(to("b1", res, find(t, e, res.Request))); !errors.Is(err, errStore) || !strings.Contains(err.Error(), `"b1"`) {
		t.Errorf("Bind = %v", err)
	}
	for _, key := range store.asked() {
		if !strings.HasPrefix(key, "eio:") || strings.Contains(key, "s1") {
			t.Errorf("stored as %q: no hash of the sid behind the name", key)
		}
	}
}

func TestEngineIOValidate(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*affinity.EngineIO{
		"short key": {Secrets: [][]byte{{1}}},
		"path":      {Secrets: testSecrets, Path: "socket.io"}, // no request has such a path
		"name":      {Secrets: testSecrets, Name: "a:b"},
		"mode":      {Secrets: testSecrets, Mode: 3},
		"store":     {Secrets: testSecrets, Store: &affinity.LRU{Size: -1}},
	} {
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), "Engine.IO") {
			t.Errorf("%s: %v", name, err)
		}
		if found, err := e.Find(polls("4", taggedSID)); err == nil && e.Path == "" || found != (affinity.Pin{}) {
			t.Errorf("%s: Find = %+v, %v", name, found, err)
		}
	}
}
