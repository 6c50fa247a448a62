// Promises about single objects: what is read, what is written, and by how many at once.

import KedgeCore

let objectPromises: [StorePromise] = [
    StorePromise("what was put is read back, whole and in part") { bench throws(KedgeError) in
        let whole = contractBytes(300_000)
        let body = ObjectBody([Array(whole[..<1]), [], Array(whole[1..<200_000]), Array(whole[200_000...])])
        let name = try bench.name("a/object")
        try bench.expect(try bench.store.put(name, body, .createOnly) == .created, "The put was not .created")
        try bench.expect(try bench.store.readAll(name, limit: whole.count) == whole, "The bytes differ")
        try bench.expect(
            try bench.store.read(name, range: 199_990..<200_010) == Array(whole[199_990..<200_010]),
            "A range in the middle differs")
        try bench.expect(
            try bench.store.read(name, range: 299_999..<300_000) == [whole[299_999]], "The last byte differs")
        try bench.expect(try bench.store.readPrefix(name, limit: 10) == Array(whole[..<10]), "A prefix differs")
        try bench.expect(try bench.store.readPrefix(name, limit: 400_000) == whole, "A longer prefix is not the object")
        try bench.expect(try bench.store.status(of: name)?.sizeBytes == 300_000, "The size differs")
        try bench.store.makeDurable(name)
    },
    StorePromise("an object may be empty") { bench throws(KedgeError) in
        try bench.expect(try bench.put("empty", []) == .created, "The put was not .created")
        try bench.expect(try bench.bytes("empty").isEmpty, "Bytes were read")
        try bench.expect(try bench.store.status(of: bench.name("empty"))?.sizeBytes == 0, "It has no status of size 0")
        try bench.expect(try bench.names() == ["empty"], "It is not listed")
    },
    StorePromise("an absent object is not-found, and nothing else is") { bench throws(KedgeError) in
        _ = try bench.put("there/object", [1])
        for text in ["absent", "absent/object", "there/other"] {
            let name = try bench.name(text)
            try bench.expect(try bench.store.status(of: name) == nil, "\"\(text)\" has a status")
            try bench.expectError(.notFound, "A range of \"\(text)\"") { () throws(KedgeError) in
                _ = try bench.store.read(name, range: 0..<1)
            }
            try bench.expectError(.notFound, "A prefix of \"\(text)\"") { () throws(KedgeError) in
                _ = try bench.store.readPrefix(name, limit: 1)
            }
            try bench.expectError(.notFound, "Making \"\(text)\" durable") { () throws(KedgeError) in
                try bench.store.makeDurable(name)
            }
        }
    },
    StorePromise("a read beyond the end is an error, never fewer bytes") { bench throws(KedgeError) in
        _ = try bench.put("object", contractBytes(100))
        let name = try bench.name("object")
        for range in [99..<101, 100..<101, 1000..<1001, 0..<101] as [Range<UInt64>] {
            try bench.expectError(.damaged, "Reading bytes \(range) of 100") { () throws(KedgeError) in
                _ = try bench.store.read(name, range: range)
            }
        }
    },
    StorePromise("an object that exists is not replaced unless asked") { bench throws(KedgeError) in
        _ = try bench.put("object", [1])
        try bench.expect(try bench.put("object", [2, 2]) == .alreadyExists, "The second put was .created")
        try bench.expect(try bench.bytes("object") == [1], "The object changed")
        try bench.expect(try bench.put("object", [3, 3], .replace) == .created, "Replacing was not .created")
        try bench.expect(try bench.bytes("object") == [3, 3], "The object was not replaced")
        try bench.expect(try bench.put("new", [4], .replace) == .created, "Replacing nothing was not .created")
    },
    StorePromise("of many that create one object at once exactly one succeeds") { bench throws(KedgeError) in
        for round in 0..<5 {
            let winners = Monitor([Int]())
            try parallelFor(count: 8, threads: 8, name: "contract") {
            } body: { (_: inout Void, number) throws(KedgeError) in
                let outcome = try bench.put("race\(round)", contractBytes(50_000, seed: number))
                if outcome == .created { winners.update { $0.append(number) } }
            }
            let won = winners.update { $0 }
            guard bench.store.capabilities.hasConditionalPut else { continue }
            try bench.expect(won.count == 1, "\(won.count) of 8 puts were .created")
            let bytes = try bench.bytes("race\(round)")
            try bench.expect(
                bytes == contractBytes(50_000, seed: won[0]), "The object is not the one that was .created")
        }
    },
    StorePromise("who reads an object while it is replaced sees the old or the new one") { bench throws(KedgeError) in
        _ = try bench.put("object", [UInt8](repeating: 0, count: 20_000))
        try parallelFor(count: 40, threads: 4, name: "contract") {
        } body: { (_: inout Void, number) throws(KedgeError) in
            if number.isMultiple(of: 2) {
                _ = try bench.put("object", [UInt8](repeating: UInt8(number), count: 20_000 + number), .replace)
            } else {
                let bytes = try bench.bytes("object")
                let isWhole = bytes.allSatisfy { $0 == bytes[0] } && bytes.count == 20_000 + Int(bytes.first ?? 255)
                try bench.expect(isWhole, "\(bytes.count) bytes were read that no put wrote")
            }
        }
    },
]
