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
	"strings"
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
	mac   []byte
	block cipher.Block
}

func newTagger(keys [][]byte) (tagger, error) {
	subs, err := subkeys("tag", keys, 64)
	if err != nil {
		return nil, err
	}
	t := make(tagger, len(subs))
	for i, sub := range subs {
		t[i].mac = sub[:32]
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
	raw := make([]byte, tagMAC+(len(home)+tagBlock-1)/tagBlock*tagBlock)
	copy(raw, t[0].sum(sid, home))
	copy(raw[tagMAC:], home)
	t[0].crypt(raw)
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
	raw, err := tagEncoding.DecodeString(tagged[dot+1:]) // which skips line breaks
	if err != nil || (len(raw)-tagMAC)%tagBlock != 0 || strings.ContainsAny(tagged[dot:], "\r\n") {
		return "", "", Unknown
	}
	for _, key := range t {
		plain := bytes.Clone(raw)
		key.crypt(plain)
		home := string(bytes.TrimRight(plain[tagMAC:], "\x00"))
		if hmac.Equal(key.sum(sid, home), raw[:tagMAC]) {
			return sid, home, Hit
		}
	}
	return "", "", Forged
}

func (k tagKey) sum(sid, home string) []byte {
	h := hmac.New(sha256.New, k.mac)
	h.Write([]byte{byte(len(home))})
	h.Write([]byte(home))
	h.Write([]byte(sid))
	return h.Sum(nil)[:tagMAC]
}

// crypt encrypts or decrypts what follows the MAC, which stays.
func (k tagKey) crypt(raw []byte) {
	var counter, pad [aes.BlockSize]byte
	copy(counter[:], raw[:tagMAC])
	for text := raw[tagMAC:]; len(text) > 0; counter[aes.BlockSize-1]++ {
		k.block.Encrypt(pad[:], counter[:])
		text = text[subtle.XORBytes(text, text, pad[:]):]
	}
}
