package affinitytest

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

// A client behaves like a browser and keeps the cookies that it gets. On each
// visit it checks that the affinity changes nothing that isn't its own.
type client struct {
	t             *testing.T
	request       func() *http.Request
	answer        func(*http.Request, string, *http.Response)
	before, after []string // cookies to send before and behind those of the jar

	mu   sync.Mutex
	jar  []cookie
	key  string   // what Bind returned last
	ours []string // names of the affinity's cookies, which it may remove
}

type cookie struct{ name, value string }

// appCookie is the cookie that the backend sets on each answer.
const appCookie = "app=1; Path=/; HttpOnly"

// visit sends a request, which the backend home answers, and returns its pin.
func (c *client) visit(a affinity.Affinity, home string) affinity.Pin {
	c.t.Helper()
	return c.exchange(a, c.next(), home, "")
}

// find returns the pin of the next request without sending it.
func (c *client) find(a affinity.Affinity) affinity.Pin {
	c.t.Helper()
	found, err := a.Find(c.next())
	if err != nil {
		c.t.Errorf("Find: %v", err)
	}
	return found
}

// next returns a new request with the cookies of the jar.
func (c *client) next() *http.Request {
	r := c.request()
	parts := append([]string{"mine=1"}, c.before...)
	c.mu.Lock()
	for _, cookie := range c.jar {
		parts = append(parts, cookie.name+"="+cookie.value)
	}
	c.mu.Unlock()
	parts = append(parts, c.after...)
	r.Header["Cookie"] = append(r.Header["Cookie"], strings.Join(parts, "; "))
	return r
}

// exchange sends r, which home answers, or standIn in place of home. It returns the
// pin of r.
func (c *client) exchange(a affinity.Affinity, r *http.Request, home, standIn string) affinity.Pin {
	c.t.Helper()
	url, header := *r.URL, r.Header.Clone()
	found, err := a.Find(r)
	if err != nil {
		c.t.Errorf("Find: %v", err)
	}

	out := *r
	out.URL = new(*r.URL)
	out.Header = maps.Clone(r.Header) // shares its slices with r.Header
	if rw, ok := a.(affinity.Rewriter); ok {
		rw.Rewrite(&out, found)
		c.mu.Lock()
		ours := c.ours
		c.mu.Unlock()
		got, want := cookies(out.Header, ours...), cookies(header, ours...)
		if !slices.Equal(got, want) {
			c.t.Errorf("Rewrite left the cookies %.200s\nof %.200s", fmt.Sprint(got), fmt.Sprint(want))
		}
	}

	res := &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Set-Cookie": {appCookie}}, Body: http.NoBody, Request: &out,
	}
	c.answer(&out, home, res)
	key, err := a.Bind(affinity.Answer{Response: res, Request: r, Found: found, Home: home, StandIn: standIn})
	if err != nil {
		c.t.Errorf("Bind to %q: %v", home, err)
	}
	if res.Header["Set-Cookie"][0] != appCookie {
		c.t.Errorf("Set-Cookie = %q, want the backend's own first", res.Header["Set-Cookie"])
	}
	if !reflect.DeepEqual(url, *r.URL) || !reflect.DeepEqual(header, r.Header) {
		c.t.Errorf("the client's request was changed: %v %v", r.URL, r.Header)
	}
	c.keep(res)
	c.mu.Lock()
	c.key = key
	c.mu.Unlock()
	return found
}

// keep puts the cookies of an answer into the jar.
func (c *client) keep(res *http.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, set := range res.Cookies()[1:] {
		c.jar = slices.DeleteFunc(c.jar, func(old cookie) bool { return old.name == set.Name })
		if !slices.Contains(c.ours, set.Name) {
			c.ours = append(slices.Clip(c.ours), set.Name) // a copy: another visit may read the old slice
		}
		if set.MaxAge >= 0 {
			c.jar = append(c.jar, cookie{set.Name, set.Value})
		}
	}
}
