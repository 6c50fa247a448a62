// Promises about uploads, removal and listings.

import KedgeCore

let writingPromises: [StorePromise] = [
    StorePromise("an upload is invisible until it is finished, and then whole") { bench throws(KedgeError) in
        let whole = contractBytes(900_000)
        let name = try bench.name("up/load")
        let upload = try bench.store.beginUpload(name, expectedBytes: 0)
        for start in stride(from: 0, to: whole.count, by: 200_001) {
            try upload.append(Array(whole[start..<min(start + 200_001, whole.count)]))
            try bench.expect(try bench.store.status(of: name) == nil, "It has a status before it is finished")
            try bench.expect(try bench.names().isEmpty, "It is listed before it is finished")
            let directories = try bench.store.directories(below: bench.directory)
            try bench.expect(directories.isEmpty, "Its directory is listed before it is finished")
        }
        try bench.expect(try upload.finish() == .created, "Finishing was not .created")
        try bench.expect(try bench.store.readAll(name, limit: whole.count) == whole, "The bytes differ")
        try bench.expect(try bench.names() == ["up/load"], "It is not listed")
    },
    StorePromise("an upload that is given up leaves nothing to be seen") { bench throws(KedgeError) in
        let upload = try bench.store.beginUpload(bench.name("aborted"), expectedBytes: 3)
        try upload.append([1, 2, 3])
        upload.abort()
        do {
            let dropped = try bench.store.beginUpload(bench.name("dropped"), expectedBytes: 3)
            try dropped.append([1, 2, 3])
        }
        try bench.expect(try bench.names().isEmpty, "Something is listed")
        try bench.expect(try bench.put("aborted", [4]) == .created, "The name is taken")
    },
    StorePromise("an upload does not replace an object that exists") { bench throws(KedgeError) in
        let upload = try bench.store.beginUpload(bench.name("object"), expectedBytes: 2)
        try upload.append([2, 2])
        _ = try bench.put("object", [1])
        try bench.expect(try upload.finish() == .alreadyExists, "Finishing was .created")
        try bench.expect(try bench.bytes("object") == [1], "The object changed")
        try bench.expect(try bench.names() == ["object"], "More than the object is listed")
    },
    StorePromise("a removed object is gone, and removing an absent one is no error") { bench throws(KedgeError) in
        for text in ["a/1", "a/2", "b/c/3"] { _ = try bench.put(text, [1]) }
        let names = [try bench.name("a/1"), try bench.name("b/c/3"), try bench.name("x/absent")]
        let failures = try bench.store.remove(names)
        try bench.expect(failures.isEmpty, "\(failures.count) of 3 could not be removed")
        try bench.expect(try bench.names() == ["a/2"], "Other than the one that was left is listed")
        try bench.expect(try bench.store.status(of: names[0]) == nil, "A removed object has a status")
        let directories = try bench.store.directories(below: bench.directory).map(bench.relative)
        try bench.expect(directories == ["a"], "The directories are \(directories)")
        try bench.expect(try bench.put("b/c/3", [2]) == .created, "A removed object cannot be created again")
        try bench.expect(try bench.bytes("b/c/3") == [2], "The object that was created again differs")
    },
    StorePromise("removing abandoned writes touches no object") { bench throws(KedgeError) in
        _ = try bench.put("a/object", [1])
        _ = try bench.store.removeAbandonedWrites(before: Timestamp(microseconds: 0))
        try bench.expect(try bench.bytes("a/object") == [1], "The object changed")
    },
]

let listingPromises: [StorePromise] = [
    StorePromise("a listing is complete at any depth, and each directory's objects are in byte order") {
        bench throws(KedgeError) in
        let texts = ["a-b", "a.b", "a/b", "a/b.c", "a/c/d/e", "a0", "A", "b", "a_b/c", "a-b.d/e"]
        for (index, text) in texts.enumerated() { _ = try bench.put(text, contractBytes(index)) }
        let expected = try bench.names()
        try bench.expect(expected.sorted() == texts.sorted(), "\(expected) is listed")
        let direct = expected.filter { !$0.contains("/") }
        try bench.expect(direct == direct.sorted(), "The objects of one directory come as \(direct)")
        for limit in 1...texts.count + 1 {
            var found: [String] = []
            var position: ObjectName?
            repeat {
                let page = try bench.store.list(below: bench.directory, after: position, limit: limit)
                try bench.expect(page.entries.count <= limit, "A page has more than \(limit) objects")
                found += page.entries.map { bench.relative($0.name) }
                position = page.next
            } while position != nil && found.count <= texts.count
            try bench.expect(found == expected, "In pages of \(limit), \(found) is listed")
        }
        try bench.store.forEachObject(below: bench.directory) { entry throws(KedgeError) in
            let status = try bench.store.status(of: entry.name)
            try bench.expect(entry.status == status, "\(entry.name) has another status in the listing")
        }
    },
    StorePromise("a listing holds only what lies below its directory") { bench throws(KedgeError) in
        for text in ["ab/1", "a/1", "a/2", "a-/1", "b"] { _ = try bench.put(text, [1]) }
        let directory = try bench.name("a")
        let page = try bench.store.list(below: directory, after: nil, limit: 100)
        try bench.expect(page.entries.map { bench.relative($0.name) } == ["a/1", "a/2"], "Others are listed")
        let later = try bench.store.list(below: directory, after: bench.name("a/1"), limit: 100)
        try bench.expect(later.entries.map { bench.relative($0.name) } == ["a/2"], "The page after a/1 differs")
        let end = try bench.store.list(below: directory, after: bench.name("b"), limit: 100)
        try bench.expect(end.entries.isEmpty && end.next == nil, "After all that is below there is more")
        let absent = try bench.store.list(below: bench.name("c"), after: nil, limit: 100)
        try bench.expect(absent.entries.isEmpty && absent.next == nil, "A directory that is not there holds objects")
    },
    StorePromise("directories are listed once each, and only those that hold objects") { bench throws(KedgeError) in
        for text in ["a/1", "a/2", "a/d/3", "a-b/x", "c/d/e/f", "file"] { _ = try bench.put(text, [1]) }
        for limit in 1...4 {
            var found: [String] = []
            var position: ObjectName?
            repeat {
                let page = try bench.store.listDirectories(below: bench.directory, after: position, limit: limit)
                found += page.directories.map(bench.relative)
                position = page.next
            } while position != nil && found.count <= 3
            try bench.expect(found == ["a-b", "a", "c"], "In pages of \(limit), the directories are \(found)")
        }
        let absent = try bench.store.directories(below: bench.name("absent"))
        try bench.expect(absent.isEmpty, "A directory that is not there has directories")
    },
    StorePromise("what exists is listed exactly once while others write and remove") { bench throws(KedgeError) in
        let fixed = (10..<40).map { "d\($0 % 5)/fixed\($0)" }
        for text in fixed { _ = try bench.put(text, [1]) }
        try parallelFor(count: 30, threads: 3, name: "contract") {
        } body: { (_: inout Void, number) throws(KedgeError) in
            if number.isMultiple(of: 3) {
                let found = try bench.names().filter { $0.contains("fixed") }
                try bench.expect(
                    found.sorted() == fixed.sorted(), "\(found.count) of \(fixed.count) objects were listed")
            } else {
                for index in 0..<5 { _ = try bench.put("d\(index)/moving\(number)", [2]) }
                let names = try (0..<5).map { (index: Int) throws(KedgeError) in
                    try bench.name("d\(index)/moving\(number)")
                }
                _ = try bench.store.remove(names)
            }
        }
    },
]
