package affinity_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) {
	leaktest.Main(m,
		// A client that was closed while its server was away dials it once more
		// within a second.
		"github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial")
}

// find fails the test if Find does.
func find(tb testing.TB, a affinity.Affinity, r *http.Request) affinity.Pin {
	tb.Helper()
	found, err := a.Find(r)
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

// bind returns the header of an answer to r after Bind, which must not fail.
func bind(tb testing.TB, a affinity.Affinity, r *http.Request, found affinity.Pin, home string) http.Header {
	tb.Helper()
	res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: r}
	if _, err := a.Bind(to(home, res, found)); err != nil {
		tb.Fatal(err)
	}
	return res.Header
}

// to returns the answer res to the client of this pin, which is bound to home.
func to(home string, res *http.Response, found affinity.Pin) affinity.Answer {
	return affinity.Answer{Response: res, Request: res.Request, Found: found, Home: home}
}

// get returns a request over plain HTTP, or over TLS for an https URL, with
// these lines of the Cookie field.
func get(url string, cookies ...string) *http.Request {
	r := httptest.NewRequest("GET", url, nil)
	if len(cookies) > 0 {
		r.Header["Cookie"] = cookies
	}
	return r
}
