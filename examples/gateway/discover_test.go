package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// Backends come and go while the gateway runs, beside one that stays.
func TestDiscover(t *testing.T) {
	t.Parallel()
	node := func(id string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, id) }))
		t.Cleanup(s.Close)
		return id + "=" + s.URL
	}
	file := filepath.Join(t.TempDir(), "nodes")
	write := func(lines ...string) {
		text := "# nodes\n"
		for _, line := range lines {
			text += line + "\n"
		}
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(node("a"))
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", node("static"), "-discover", "file:"+file+"?grace=-1s", "-affinity", "header:X-User")
	url := "http://" + address(t, p)
	both := func() map[string]bool {
		seen := make(map[string]bool)
		for range 6 {
			res, err := http.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			seen[string(body)] = true
		}
		return seen
	}
	p.AwaitLine(t, "backend=a .*why=added")
	if seen := both(); len(seen) != 2 || !seen["a"] || !seen["static"] {
		t.Errorf("answers of %v, want a and static", seen)
	}
	write("b")
	p.AwaitLine(t, "discovery fails.*nodes:2: ")
	write(node("b"))
	p.AwaitLine(t, "discovery works again")
	p.AwaitLine(t, "backend=b .*why=added")
	p.AwaitLine(t, "backend=a .*why=removed")
	if seen := both(); len(seen) != 2 || !seen["b"] || !seen["static"] {
		t.Errorf("answers of %v, want b and static", seen)
	}
}
