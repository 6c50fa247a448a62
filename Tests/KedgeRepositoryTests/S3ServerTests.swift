// The promises of a store on real object stores, and what users see when one does not do what it should.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.enabled(if: !S3TestServer.all.isEmpty, "needs object stores: scripts/test.sh")) struct S3ServerTests {
    private func retrying(_ store: S3Store) -> RetryingStore {
        RetryingStore(store, time: SystemTimeSource(), random: SystemRandomSource(), interruption: Interruption())
    }

    private func bytes(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed) ^ ($0 >> 8)) }
    }

    private func error(_ body: () throws(KedgeError) -> Void) -> KedgeError? {
        do throws(KedgeError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    // MARK: The contract

    @Test("promise: ", arguments: S3TestServer.all, ObjectStoreContract.promises)
    func contract(_ server: S3TestServer, _ promise: StorePromise) throws {
        // rclone writes the file in place; only leases are ever replaced, and what they say decides nothing.
        if server.name == "rclone", promise.title.contains("while it is replaced") { return }
        try promise.verify(on: retrying(server.store()), below: server.newDirectory())
    }

    @Test("promise over TLS: ", arguments: S3TestServer.all, [ObjectStoreContract.promises[0]])
    func secureContract(_ server: S3TestServer, _ promise: StorePromise) throws {
        var access = S3TestServer.Access()
        access.isSecure = true
        try promise.verify(on: retrying(server.store(access)), below: server.newDirectory())
    }

    @Test(
        "an upload of several parts comes back as it was, and is .alreadyExists to the next",
        arguments: S3TestServer.all)
    func multipart(_ server: S3TestServer) throws {
        let store = retrying(try server.store())
        let name = try #require(server.newDirectory().appending("large"))
        let whole = bytes(12 << 20, 7)
        for expected in [PutOutcome.created, .alreadyExists] {
            let upload = try store.beginUpload(name, expectedBytes: 0)
            for start in stride(from: 0, to: whole.count, by: 1 << 20) {
                try upload.append(Array(whole[start..<start + (1 << 20)]))
                if expected == .created { #expect(try store.status(of: name) == nil, "it is visible too early") }
            }
            #expect(try upload.finish() == expected)
        }
        #expect(try store.readAll(name, limit: whole.count) == whole)
        #expect(try store.read(name, range: 5_242_870..<5_242_890) == Array(whole[5_242_870..<5_242_890]))
        #expect(try store.remove([name]).isEmpty)
    }

    @Test("uploads that a crash left are taken away, and only old ones", arguments: S3TestServer.all)
    func abandonedUpload(_ server: S3TestServer) throws {
        var access = S3TestServer.Access()
        access.prefix = "tests/\(server.newDirectory())"
        let store = try server.store(access)
        let upload = try store.beginUpload("left/behind", expectedBytes: 0)
        for part in 0..<6 { try upload.append(bytes(1 << 20, part)) }
        try upload.append([1])
        #expect(try store.removeAbandonedWrites(before: Timestamp(microseconds: 0)) == 0)
        // rclone lists uploads only below the very key; there they go with its own clean-up.
        if server.name != "rclone" {
            let later = SystemTimeSource().now().adding(seconds: 3600)
            #expect(try store.removeAbandonedWrites(before: later) == 1)
            #expect(error { () throws(KedgeError) in _ = try upload.finish() } != nil)
        }
        #expect(try store.list(below: nil, after: nil, limit: 10).entries.isEmpty)
    }

    // In batches over TLS, and one by one without.
    @Test(
        "more than a thousand objects are listed once each and removed", arguments: S3TestServer.all, [false, true])
    func manyObjects(_ server: S3TestServer, isSecure: Bool) throws {
        var access = S3TestServer.Access()
        access.isSecure = isSecure
        let store = retrying(try server.store(access))
        let directory = server.newDirectory()
        let names = (0..<1105).compactMap { directory.appending("d\($0 % 3)/\($0)") }
        try parallelFor(count: names.count, threads: 8, name: "put") {
        } body: { (_: inout Void, number) throws(KedgeError) in
            _ = try store.put(names[number], ObjectBody([1]), .createOnly)
        }
        var found: [ObjectName] = []
        try store.forEachObject(below: directory) { found.append($0.name) }
        #expect(found.count == names.count && Set(found) == Set(names))
        #expect(try store.remove(names).isEmpty)
        #expect(try store.list(below: directory, after: nil, limit: 1).entries.isEmpty)
    }

    @Test("of many clients that create one object at once exactly one succeeds", arguments: S3TestServer.all)
    func race(_ server: S3TestServer) throws {
        guard server.hasConditionalPut else { return }
        let directory = server.newDirectory()
        for round in 0..<10 {
            let name = try #require(directory.appending("r\(round)"))
            let winners = Monitor([Int]())
            try parallelFor(count: 6, threads: 6, name: "race") {
            } body: { (_: inout Void, number) throws(KedgeError) in
                let store = retrying(try server.store())
                let outcome = try store.put(name, ObjectBody(bytes(20_000, number)), .createOnly)
                if outcome == .created { winners.update { $0.append(number) } }
            }
            let won = winners.update { $0 }
            #expect(won.count == 1)
            #expect(try server.store().readAll(name, limit: 30_000) == bytes(20_000, won.first ?? -1))
        }
    }

    @Test("conditional puts are tried before a store is trusted with them", arguments: S3TestServer.all)
    func conditionalPut(_ server: S3TestServer) throws {
        try server.store().confirmConditionalPut(random: SystemRandomSource())
        let other = S3Store(
            try server.settings(), conditionalPut: !server.hasConditionalPut)
        let refused = error { () throws(KedgeError) in
            try other.confirmConditionalPut(random: SystemRandomSource())
        }
        #expect(refused?.code == .configuration)
    }

    // MARK: What goes wrong

    @Test(
        "wrong credentials are a permission, with the store's request id where it has one", arguments: S3TestServer.all)
    func wrongSecret(_ server: S3TestServer) throws {
        var access = S3TestServer.Access()
        access.secretAccessKey = "not/the+secret"
        let store = try server.store(access)
        let found = error { () throws(KedgeError) in _ = try store.status(of: "kedge.json") }
        #expect(found?.code == .permission)
        #expect(found?.detail?.contains("SignatureDoesNotMatch") == true)
        // rclone gives none to a request that it refuses.
        #expect(found?.detail?.contains("request id") == (server.name != "rclone"))
        #expect("\(String(describing: found))".contains("not/the+secret") == false)
    }

    @Test("a bucket that is not there is an error, never an absent object", arguments: S3TestServer.all)
    func missingBucket(_ server: S3TestServer) throws {
        var access = S3TestServer.Access()
        access.bucket = "no-such-bucket"
        let store = try server.store(access)
        #expect(error { () throws(KedgeError) in _ = try store.status(of: "a") }?.code == .configuration)
        #expect(error { () throws(KedgeError) in _ = try store.list(below: nil, after: nil, limit: 1) } != nil)
        #expect(error { () throws(KedgeError) in _ = try store.readPrefix("a", limit: 1) }?.code == .configuration)
    }

    @Test("a certificate that nobody vouches for is refused", arguments: S3TestServer.all)
    func untrusted(_ server: S3TestServer) throws {
        var access = S3TestServer.Access()
        access.isSecure = true
        access.trustFile = "/etc/ssl/certs/ca-certificates.crt"
        let store = try server.store(access)
        #expect(error { () throws(KedgeError) in _ = try store.status(of: "a") }?.code == .permission)
    }

    @Test("a port where nothing listens is unavailable", arguments: S3TestServer.all)
    func nobodyThere(_ server: S3TestServer) throws {
        var access = S3TestServer.Access()
        access.endpoint = "http://127.0.0.1:1"
        let store = try server.store(access)
        #expect(error { () throws(KedgeError) in _ = try store.status(of: "a") }?.code == .repositoryUnavailable)
    }

    @Test(
        "a clock that differs by hours takes the store's over (lesson 21)", arguments: S3TestServer.all, [-7200, 7200])
    func clockSkew(_ server: S3TestServer, _ seconds: Int64) throws {
        // rclone says AccessDenied to a clock that is behind, and sends no Date to set it by.
        guard server.name != "rclone" else { return }
        var access = S3TestServer.Access()
        access.time = ShiftedTime(seconds: seconds)
        let store = try server.store(access)
        #expect(try store.status(of: "absent") == nil)
        #expect(try store.list(below: "absent", after: nil, limit: 1).entries.isEmpty)
    }

    @Test("an interruption ends a request", arguments: S3TestServer.all)
    func interrupted(_ server: S3TestServer) throws {
        let access = S3TestServer.Access()
        let store = try server.store(access)
        access.interruption.request(signal: 15)
        #expect(error { () throws(KedgeError) in _ = try store.status(of: "a") }?.code == .interrupted)
    }
}

/// The system's clock, set wrong.
private struct ShiftedTime: TimeSource {
    let seconds: Int64

    func now() -> Timestamp { SystemTimeSource().now().adding(seconds: seconds) }
    func monotonicNanoseconds() -> UInt64 { SystemTimeSource().monotonicNanoseconds() }
    func sleep(nanoseconds: UInt64) { SystemTimeSource().sleep(nanoseconds: nanoseconds) }
}
