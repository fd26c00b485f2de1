package affinity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"strings"
	"sync"
)

// A tagged sid is sid "." tag, the tag being in unpadded URL-safe base64:
//
//	mac(10) ciphertext of: home, filled up with zeros to a multiple of 8
//
// mac is HMAC-SHA-256 over len(home), home and sid, cut to 80 bits, and at the
// same time the initial counter of AES-256-CTR, as in RFC 5297. Two tags of one
// sid, which only an application that makes its own sids can cause, thus give
// away no more than whether the home is the same; with GCM they would give away
// the key.
const (
	tagMAC   = 10
	tagBlock = 8
	maxHome  = 64                            // as long as a backend's ID may be
	maxTag   = 1 + ((tagMAC+maxHome)*8+5)/6  // in characters, with the dot
	minTag   = 1 + ((tagMAC+tagBlock)*8+5)/6 // with the shortest ID
)

var tagEncoding = base64.RawURLEncoding.Strict()

// A tagger tags with the first of its keys and opens with all.
type tagger []tagKey

type tagKey struct {
	block cipher.Block
	rooms *sync.Pool // of *tagRoom
}

// A tagRoom is what the work on a tag needs, used again: made anew it would cost
// more than the work.
type tagRoom struct {
	mac          hash.Hash // of the key
	text         []byte
	raw, plain   [tagMAC + maxHome + 2]byte // which base64 may fill up
	sum          [sha256.Size]byte
	counter, pad [aes.BlockSize]byte
}

func newTagger(secrets [][]byte) (tagger, error) {
	subs, err := subkeys("tag", secrets, 64)
	if err != nil {
		return nil, err
	}
	t := make(tagger, len(subs))
	for i, sub := range subs {
		t[i].rooms = &sync.Pool{New: func() any { return &tagRoom{mac: hmac.New(sha256.New, sub[:32])} }}
		if t[i].block, err = aes.NewCipher(sub[32:]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// tag returns what to append to a sid of this home, the dot included.
func (t tagger) tag(sid, home string) (string, error) {
	if home == "" || len(home) > maxHome || strings.IndexByte(home, 0) >= 0 {
		return "", errors.New("a tag takes IDs of 1 to 64 bytes without zeros")
	}
	room := t[0].rooms.Get().(*tagRoom)
	defer t[0].rooms.Put(room)
	raw := make([]byte, tagMAC+(len(home)+tagBlock-1)/tagBlock*tagBlock)
	copy(raw, room.sign(sid, home))
	copy(raw[tagMAC:], home)
	room.crypt(t[0].block, raw)
	return "." + tagEncoding.EncodeToString(raw), nil
}

// open returns the sid and the home of a tagged sid. The status is Unknown for
// what doesn't look like one and Forged for what isn't from any of the keys.
func (t tagger) open(tagged string) (sid, home string, status Status) {
	dot := strings.LastIndexByte(tagged, '.')
	if dot <= 0 || len(tagged)-dot < minTag || len(tagged)-dot > maxTag {
		return "", "", Unknown
	}
	sid = tagged[:dot]
	for _, key := range t {
		if home, status = key.open(sid, tagged[dot+1:]); status != Forged {
			return sid, home, status
		}
	}
	return "", "", Forged
}

func (k tagKey) open(sid, tag string) (home string, status Status) {
	room := k.rooms.Get().(*tagRoom)
	defer k.rooms.Put(room)
	room.text = append(room.text[:0], tag...)
	n, err := tagEncoding.Decode(room.raw[:], room.text) // which skips line breaks
	raw := room.raw[:max(n, tagMAC)]
	if err != nil || (n-tagMAC)%tagBlock != 0 || strings.ContainsAny(tag, "\r\n") {
		return "", Unknown
	}
	plain := append(room.plain[:0], raw...)
	room.crypt(k.block, plain)
	home = string(bytes.TrimRight(plain[tagMAC:], "\x00"))
	if !hmac.Equal(room.sign(sid, home), raw[:tagMAC]) {
		return "", Forged
	}
	return home, Hit
}

// sign returns the MAC, which the next call overwrites.
func (r *tagRoom) sign(sid, home string) []byte {
	r.text = append(append(append(r.text[:0], byte(len(home))), home...), sid...)
	r.mac.Reset()
	r.mac.Write(r.text)
	return r.mac.Sum(r.sum[:0])[:tagMAC]
}

// crypt encrypts or decrypts what follows the MAC, which stays.
func (r *tagRoom) crypt(block cipher.Block, raw []byte) {
	r.counter = [aes.BlockSize]byte{}
	copy(r.counter[:], raw[:tagMAC])
	for text := raw[tagMAC:]; len(text) > 0; r.counter[aes.BlockSize-1]++ {
		block.Encrypt(r.pad[:], r.counter[:])
		text = text[subtle.XORBytes(text, text, r.pad[:]):]
	}
}
