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

// A tagged sid is the sid, a '.' and the tag. The tag is, in unpadded URL-safe
// base64:
//
//	mac(10) ciphertext of: home, filled up with zeros to a multiple of 8
//
// mac is HMAC-SHA-256 over len(home), home and sid, cut to 80 bits. It also is the
// initial counter of AES-256-CTR, as in RFC 5297. An application that makes its own
// sids may repeat one, which then has two tags. Together these tell no more than
// whether the homes are the same. With AES-GCM they would give away the key.
const (
	tagMAC   = 10
	tagBlock = 8
	maxHome  = 64                            // the longest ID of a backend
	maxTag   = 1 + ((tagMAC+maxHome)*8+5)/6  // in characters, with the dot
	minTag   = 1 + ((tagMAC+tagBlock)*8+5)/6 // with the shortest ID
)

var tagEncoding = base64.RawURLEncoding.Strict()

// A tagger tags with the first of its keys and opens tags of all of them.
type tagger []tagKey

// A tagKey is derived from one of the secrets. Its half for the MAC is
// held by the hashes in the pool.
type tagKey struct {
	block cipher.Block
	rooms *sync.Pool // of *tagRoom
}

// A tagRoom has the buffers and the hash that one tag needs. They are pooled
// because allocating them would cost more than the tag itself.
type tagRoom struct {
	mac          hash.Hash // keyed
	text         []byte
	raw, plain   [tagMAC + maxHome + 2]byte // with room for what base64 may decode beyond
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

// tag returns what is appended to a sid of this home, including the dot.
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
// a sid that has nothing of the form of a tag, and Forged for a tag that none
// of the keys has made.
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

// open returns the home in a tag of this key.
func (k tagKey) open(sid, tag string) (home string, status Status) {
	room := k.rooms.Get().(*tagRoom)
	defer k.rooms.Put(room)
	room.text = append(room.text[:0], tag...)
	n, err := tagEncoding.Decode(room.raw[:], room.text) // skips line breaks, refused below
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

// sign returns the MAC. The next call overwrites it.
func (r *tagRoom) sign(sid, home string) []byte {
	r.text = append(append(append(r.text[:0], byte(len(home))), home...), sid...)
	r.mac.Reset()
	r.mac.Write(r.text)
	return r.mac.Sum(r.sum[:0])[:tagMAC]
}

// crypt encrypts or decrypts the bytes behind the MAC in place.
func (r *tagRoom) crypt(block cipher.Block, raw []byte) {
	r.counter = [aes.BlockSize]byte{}
	copy(r.counter[:], raw[:tagMAC])
	for text := raw[tagMAC:]; len(text) > 0; r.counter[aes.BlockSize-1]++ {
		block.Encrypt(r.pad[:], r.counter[:])
		text = text[subtle.XORBytes(text, text, r.pad[:]):]
	}
}
