package main

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"strconv"

	"github.com/limpet-go/limpet/balancer"
)

// A hash places a client by its address or a name, without memory: the same way for each of
// its requests.
type hash struct {
	name string
	// build returns the function for some backends, of which those in down were found to
	// be down. A backend that was taken out of the configuration isn't in the first.
	build func(backends []int, down map[int]bool) func(client) int
}

// A client is a session's: key is its name, addr the address that it comes from.
type client struct {
	key  string
	addr [4]byte
}

// hashes are Limpet's and those of others.
func hashes() []hash {
	return []hash{
		{"Limpet key", func(backends []int, down map[int]bool) func(client) int {
			return rendezvous(backends, down, func(c client) string { return c.key })
		}},
		{"ring", ring},
		{"modulo", modulo},
		{"ip_hash", ipHash},
	}
}

// rendezvous is a Limpet pool's, which hashes what key returns.
func rendezvous(backends []int, down map[int]bool, key func(client) string) func(client) int {
	pool := newPool(nil, backends)
	for b := range down {
		_ = pool.Off(strconv.Itoa(b))
	}
	return func(c client) int {
		b, err := pool.Pick(nil, "", key(c))
		if err != nil {
			panic(err)
		}
		return number(b)
	}
}

// ring is consistent hashing by points on a ring, as nginx's "hash consistent" and libketama
// do it: 160 points for each backend, each of them the CRC of the backend's address and the
// point before, and a key belongs to the next point.
func ring(backends []int, down map[int]bool) func(client) int {
	type point struct {
		at uint32
		of int
	}
	var points []point
	for _, b := range backends {
		if down[b] {
			continue
		}
		base := crc32.ChecksumIEEE(fmt.Appendf(nil, "10.0.%d.%d\x003000", b/256, b%256))
		var at uint32
		for range 160 {
			at = crc32.Update(base, crc32.IEEETable, binary.LittleEndian.AppendUint32(nil, at))
			points = append(points, point{at, b})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	return func(c client) int {
		h := crc32.ChecksumIEEE([]byte(c.key))
		i, _ := slices.BinarySearchFunc(points, h, func(p point, h uint32) int { return cmp.Compare(p.at, h) })
		return points[i%len(points)].of
	}
}

// modulo is what HAProxy does by default (hash-type map-based) and nginx's plain "hash" does
// at a change of its configuration: the hash modulo the number of backends that are there.
func modulo(backends []int, down map[int]bool) func(client) int {
	up := slices.DeleteFunc(slices.Clone(backends), func(b int) bool { return down[b] })
	return func(c client) int {
		return up[int(crc32.ChecksumIEEE([]byte(c.key)))%len(up)]
	}
}

// ipHash is nginx's ip_hash: three bytes of the address, one of 6,271 values, and another
// round where the backend is down, 20 of them at most.
func ipHash(backends []int, down map[int]bool) func(client) int {
	return func(c client) int {
		h := 89
		for range 20 {
			for _, b := range c.addr[:3] {
				h = (h*113 + int(b)) % 6271
			}
			if b := backends[h%len(backends)]; !down[b] {
				return b
			}
		}
		return backends[slices.IndexFunc(backends, func(b int) bool { return !down[b] })]
	}
}

// newPool returns a pool of these backends, all with the same weight.
func newPool(picker balancer.Picker, backends []int) *balancer.Pool {
	specs := make([]string, len(backends))
	for i, n := range backends {
		specs[i] = fmt.Sprintf("%d=http://10.0.%d.%d:3000", n, n/256, n%256)
	}
	pool, err := balancer.ParsePool(&balancer.Options{Picker: picker, Logger: slog.New(slog.DiscardHandler)}, specs...)
	if err != nil {
		panic(err)
	}
	return pool
}

// number returns a backend's number, which is its ID.
func number(b *balancer.Backend) int {
	n, err := strconv.Atoi(b.ID())
	if err != nil {
		panic(err)
	}
	return n
}

// upTo returns 0 to n-1.
func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
