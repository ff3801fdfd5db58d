package delivery

import (
	"bytes"
	"encoding/json"
	"slices"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
	"tweedle/values/types"
)

// migrate takes over what the first version stored, which kept a copy of each proof
// in a bucket "data": what was delivered stays delivered. What was only acknowledged
// is asked for again. Its judgement that a proof had expired is left behind, and so
// are the gateways that it only had heard of. What is damaged is left out.
func migrate(b *bbolt.Bucket) error {
	records := b.Bucket([]byte("records"))
	if records == nil {
		return nil
	}
	var s Saved
	err := records.ForEach(func(k, v []byte) error {
		var r Record
		if openOld(k, v, &r) {
			s.Records = append(s.Records, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var pool struct {
		APISet            bool
		Slots, Candidates []Named
		Banned            []string
	}
	if v := b.Get([]byte("pool")); v != nil && openOld([]byte("pool"), v, &pool) {
		s.APISet = pool.APISet || len(pool.Banned) > 0
		s.Gateways = slices.DeleteFunc(slices.Concat(pool.Slots, pool.Candidates),
			func(g Named) bool { return g.Source != Configured && g.Source != FromAPI })
	}
	if err := s.write(sealed.Top(b.Tx(), bucket)); err != nil {
		return err
	}
	for _, name := range []string{"records", "data"} {
		if err := b.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	return b.Delete([]byte("pool"))
}

// openOld decodes a value with the checksum of the first version behind it, which
// did not cover the bucket.
func openOld(key, old []byte, into any) bool {
	const size = 8
	if len(old) < size {
		return false
	}
	value := old[:len(old)-size]
	sum := types.Sum(key, value)
	return bytes.Equal(sum[:size], old[len(value):]) && json.Unmarshal(value, into) == nil
}
