package affinity_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/affinity/affinitytest"
)

var testKeys = [][]byte{bytes.Repeat([]byte("k"), 32)}

func TestConformance(t *testing.T) {
	t.Parallel()
	const idle = time.Minute
	cookie := func() *affinity.Cookie { return &affinity.Cookie{Keys: testKeys, Idle: idle} }
	tls := func(*http.Request) bool { return true }

	for _, tt := range []struct {
		name string
		// newWorld returns what makes a replica. Replicas of one world share their stores.
		newWorld func() func() affinity.Affinity
		opts     affinitytest.Options
	}{
		{"Cookie", func() func() affinity.Affinity {
			return func() affinity.Affinity { return cookie() }
		}, affinitytest.Options{Remembers: true, Sealed: true, Idle: idle}},

		{"Cookie over TLS", func() func() affinity.Affinity {
			return func() affinity.Affinity {
				c := cookie()
				c.OverTLS = tls
				return c
			}
		}, affinitytest.Options{Remembers: true, Sealed: true, Idle: idle, Cookies: []string{"limpet"}}},

		{"CookieMap", func() func() affinity.Affinity {
			return func() affinity.Affinity {
				return &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "b1"}, Default: "b2"}
			}
		}, affinitytest.Options{Cookies: []string{"server"}}},

		{"Hash", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.Hash{Key: affinity.Query("client")} }
		}, affinitytest.Options{}},

		{"Table", func() func() affinity.Affinity {
			lru := &affinity.LRU{Idle: idle}
			return func() affinity.Affinity { return &affinity.Table{Store: lru} }
		}, affinitytest.Options{Remembers: true, Idle: idle}},

		{"Chain", func() func() affinity.Affinity {
			lru := &affinity.LRU{Idle: idle}
			return func() affinity.Affinity {
				return affinity.Chain{cookie(), &affinity.Table{Key: affinity.Header("Client"), Store: lru}, &affinity.Hash{}}
			}
		}, affinitytest.Options{Remembers: true, Idle: idle}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			affinitytest.TestAffinity(t, tt.newWorld(), tt.opts)
		})
	}
}

func TestStoreConformance(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 10_000} {
		t.Run(fmt.Sprint("LRU of ", size), func(t *testing.T) {
			t.Parallel()
			lru := &affinity.LRU{Size: size}
			affinitytest.TestStore(t, func() affinity.Store { return lru })
		})
	}
}
