// The client against an object store on paper: what it does about answers that real stores give only now and then.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct S3PaperTests {
    private func error(_ body: () throws(KedgeError) -> Void) -> KedgeError? {
        do throws(KedgeError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    private func bytes(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed) ^ ($0 >> 8)) }
    }

    private func retrying(_ store: S3Store) -> RetryingStore {
        var policy = RetryPolicy()
        policy.firstDelayNanoseconds = 1_000_000
        return RetryingStore(
            store, policy: policy, time: SystemTimeSource(), random: SystemRandomSource(),
            interruption: Interruption())
    }

    private func error(_ code: String, _ status: Int) -> LocalHTTPServer.Reply {
        .answer(
            status, headers: [("x-amz-request-id", "REQ")],
            body: Array("<Error><Code>\(code)</Code><Message>m</Message></Error>".utf8))
    }

    @Test("promise: ", arguments: ObjectStoreContract.promises)
    func contract(_ promise: StorePromise) throws {
        let paper = try PaperObjectStore()
        let store = S3Store(try paper.settings(prefix: "p"), conditionalPut: true, partBytes: 64 << 10)
        try promise.verify(on: retrying(store), below: "contract")
    }

    // MARK: Parts of an upload

    private func upload(
        _ store: any ObjectStore, _ whole: [UInt8], piece: Int = 10_000
    ) throws(KedgeError) -> PutOutcome {
        let upload = try store.beginUpload("large", expectedBytes: 0)
        for start in stride(from: 0, to: whole.count, by: piece) {
            try upload.append(Array(whole[start..<min(start + piece, whole.count)]))
        }
        return try upload.finish()
    }

    @Test("parts go up several at a time, arrive in any order, and the object is what was written")
    func partsInFlight() throws {
        let time = SystemTimeSource()
        let paper = try PaperObjectStore { request, _ in
            // Early parts take longer than later ones.
            if request.target.contains("partNumber=") {
                time.sleep(nanoseconds: request.target.contains("partNumber=1&") ? 200_000_000 : 30_000_000)
            }
            return nil
        }
        let whole = bytes(1_000_000, 3)
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        #expect(try upload(store, whole) == .created)
        #expect(paper.objects["large"]?.bytes == whole)
        #expect(paper.mostRequestsAtOnce > 1 && paper.mostRequestsAtOnce <= 4, "\(paper.mostRequestsAtOnce)")
        #expect(paper.unfinishedUploads == 0)
        #expect(try upload(store, whole) == .alreadyExists)
        #expect(paper.unfinishedUploads == 0)
    }

    @Test(
        "a part that fails is sent again with the same number and the same bytes, and none is lost", arguments: 1...20)
    func failingParts(_ seed: UInt64) throws {
        let random = SeededRandom(seed: testSeed() &+ seed)
        let sent = Monitor([Int: Set<Int>]())
        let paper = try PaperObjectStore { request, _ in
            guard let range = request.target.firstRange(of: "partNumber=") else { return nil }
            let number = Int(request.target[range.upperBound...].prefix { $0.isNumber }) ?? 0
            sent.update { $0[number, default: []].formUnion([request.body.hashValue]) }
            switch random.next(below: 6) {
            case 0: return .answer(503)
            case 1: return .bytes([], reset: true)
            case 2: return .bytes(Array("HTTP/1.1 200 OK\r\nContent-Le".utf8))
            default: return nil
            }
        }
        let whole = bytes(700_000, Int(truncatingIfNeeded: seed))
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        do {
            #expect(try upload(retrying(store), whole) == .created)
            #expect(paper.objects["large"]?.bytes == whole)
        } catch {
            // Six failures in a row of one call: then nothing is visible, and nothing stays behind.
            #expect(error.code.isRetryable)
            #expect(paper.objects.isEmpty)
        }
        #expect(sent.update { $0.values.allSatisfy { $0.count == 1 } })
        #expect(paper.unfinishedUploads == 0)
    }

    @Test("an error that nobody can heal ends the upload and removes what was sent")
    func refusedPart() throws {
        let paper = try PaperObjectStore { request, _ in
            request.target.contains("partNumber=3&") ? .answer(403) : nil
        }
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        let failure = error { () throws(KedgeError) in _ = try upload(retrying(store), bytes(700_000, 1)) }
        #expect(failure?.code == .permission)
        #expect(paper.objects.isEmpty && paper.unfinishedUploads == 0)
    }

    // MARK: Lost answers

    @Test("a put whose answer is lost on a kept connection is settled by reading back, not taken for somebody else's")
    func lostAnswerToPut() throws {
        let paper = try PaperObjectStore()
        let store = S3Store(try paper.settings(), conditionalPut: true)
        #expect(try retrying(store).put("first", ObjectBody([1]), .createOnly) == .created)
        paper.habits.losesAnswer = { $0.method == "PUT" }
        #expect(try retrying(store).put("second", ObjectBody([2]), .createOnly) == .created)
        #expect(paper.habits.losesAnswer == nil, "no answer was lost")
        paper.habits.losesAnswer = { $0.method == "PUT" }
        #expect(try retrying(store).put("second", ObjectBody([3]), .createOnly) == .alreadyExists)
        #expect(paper.objects["second"]?.bytes == [2])
    }

    @Test("an upload whose completion is answered too late is our own")
    func lostAnswerToCompletion() throws {
        let paper = try PaperObjectStore()
        let whole = bytes(300_000, 4)
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        paper.habits.losesAnswer = { $0.method == "POST" && $0.target.contains("uploadId=") }
        #expect(try upload(retrying(store), whole) == .created)
        #expect(paper.habits.losesAnswer == nil, "no answer was lost")
        #expect(paper.objects["large"]?.bytes == whole)
    }

    @Test("a completion that is carried out after it was given up, and refused the second time, is our own")
    func completionTwice() throws {
        let whole = bytes(300_000, 4)
        let progress = Monitor((completions: 0, looks: 0))
        let paper = try PaperObjectStore { request, _ in
            progress.update { progress in
                if request.method == "POST", request.target.contains("uploadId=") {
                    progress.completions += 1
                    return progress.completions == 2 ? self.error("PreconditionFailed", 412) : nil
                }
                guard request.header("range") == "bytes=0-0", progress.completions == 1 else { return nil }
                progress.looks += 1
                return progress.looks == 1 ? self.error("NoSuchKey", 404) : nil
            }
        }
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        paper.habits.losesAnswer = { $0.method == "POST" && $0.target.contains("uploadId=") }
        #expect(try upload(retrying(store), whole) == .created)
        #expect(progress.update { $0.completions } == 2, "it was not tried twice")
        #expect(paper.objects["large"]?.bytes == whole)
    }

    @Test("an error without a name in the answer to a removal is a failure of all of it")
    func removalError() throws {
        let document = "<DeleteResult><Error><Code>AccessDenied</Code><Message>m</Message></Error></DeleteResult>"
        let paper = try PaperObjectStore { request, _ in
            request.target.contains("delete") ? .answer(200, body: Array(document.utf8)) : nil
        }
        let store = S3Store(try paper.settings(), conditionalPut: true, removesInBatches: true)
        let failure = error { () throws(KedgeError) in _ = try store.remove(["a"]) }
        #expect(failure?.code == .permission)
    }

    // MARK: Asking right

    /// Credentials of which the first have expired.
    private final class Renewable: S3CredentialSource {
        let state = Monitor((id: "old", renewals: 0, next: "new"))

        private func credentials(_ id: String) -> S3Credentials {
            S3Credentials(accessKeyID: id, secretAccessKey: Secret([1, 2, 3]))
        }

        func credentials(at moment: Timestamp) throws(KedgeError) -> S3Credentials {
            credentials(state.update { $0.id })
        }

        func renew(_ refused: S3Credentials, at moment: Timestamp) throws(KedgeError) -> Bool {
            state.update { state in
                state.renewals += 1
                state.id = state.next
                return state.id != refused.accessKeyID
            }
        }
    }

    @Test("credentials that have expired are looked for once more, and the request is repeated with others")
    func expiredCredentials() throws {
        let paper = try PaperObjectStore()
        paper.habits.knownKeys = ["new"]
        let source = Renewable()
        let store = S3Store(try paper.settings(credentials: source), conditionalPut: true)
        #expect(try store.put("a", ObjectBody([1]), .createOnly) == .created)
        #expect(source.state.update { $0.renewals } == 1)
        #expect(try store.readAll("a", limit: 1) == [1])
        #expect(source.state.update { $0.renewals } == 1)
        // The same again, or others that are no better: one look each request, and the store's words.
        paper.habits.knownKeys = ["another"]
        let failure = error { () throws(KedgeError) in _ = try store.status(of: "a") }
        #expect(failure?.detail?.contains("ExpiredToken") == true)
        #expect(source.state.update { $0.renewals } == 2)
        source.state.update { $0.next = "newer" }
        #expect(error { () throws(KedgeError) in _ = try store.status(of: "a") } != nil)
        #expect(source.state.update { $0.renewals } == 3)
    }

    @Test("another region is followed once, by its name in a header of 301 and 307", arguments: [301, 307])
    func otherRegion(_ status: Int) throws {
        let paper = try PaperObjectStore()
        paper.habits.region = ("there", status)
        let store = S3Store(try paper.settings(region: "here"), conditionalPut: true)
        #expect(try store.put("a", ObjectBody([1]), .createOnly) == .created)
        #expect(try store.readAll("a", limit: 1) == [1])
        // One detour, and from then on the right way at once.
        #expect(paper.requests.count == 3)
        paper.habits.region = ("elsewhere", status)
        let failure = error { () throws(KedgeError) in _ = try store.status(of: "a") }
        #expect(failure?.code == .configuration && failure?.detail?.contains("REQ-4") == true)
    }

    @Test("a clock that is hours off is the store's from the second request on (lesson 21)", arguments: [-9000, 9000])
    func skewedClock(_ seconds: Int64) throws {
        let paper = try PaperObjectStore()
        paper.habits.clockOffset = seconds
        let store = S3Store(try paper.settings(), conditionalPut: true)
        #expect(try store.put("a", ObjectBody([1]), .createOnly) == .created)
        #expect(try store.readAll("a", limit: 1) == [1])
        #expect(paper.requests.count == 3)
    }

    @Test("all three lessons in one request")
    func everythingAtOnce() throws {
        let paper = try PaperObjectStore()
        paper.habits.knownKeys = ["new"]
        paper.habits.region = ("there", 301)
        paper.habits.clockOffset = 90_000
        let store = S3Store(try paper.settings(credentials: Renewable()), conditionalPut: true)
        #expect(try store.put("a", ObjectBody([1]), .createOnly) == .created)
        #expect(paper.requests.count == 4)
    }

    // MARK: Answers of nobody's store

    /// What stands between us and the store, and answers everything with 200.
    static let impostors: [(name: String, headers: [(name: String, value: String)], body: String)] = [
        ("nothing", [], ""),
        ("a word", [], "OK"),
        ("a login page", [("Content-Type", "text/html; charset=utf-8")], "<!DOCTYPE html><html><p>Log in</html>"),
        // Frameworks give each page an ETag of its own.
        ("a page with a tag", [("Content-Type", "Text/HTML"), ("ETag", "W/\"21-x\"")], "<html><p>Log in</p></html>"),
    ]

    @Test("a good status of somebody who is no object store stores nothing and shows nothing", arguments: 0..<4)
    func impostor(_ index: Int) throws {
        let impostor = Self.impostors[index]
        let date = [("Last-Modified", "Fri, 24 May 2013 00:00:00 GMT")]
        let paper = try PaperObjectStore { _, _ in
            .answer(200, headers: impostor.headers + date, body: Array(impostor.body.utf8))
        }
        for isConditional in [true, false] {
            let store = S3Store(try paper.settings(), conditionalPut: isConditional, partBytes: 64 << 10)
            let calls: [() throws -> Void] = [
                { _ = try store.put("a", ObjectBody([1]), .createOnly) },
                { _ = try store.put("a", ObjectBody([1]), .replace) },
                { _ = try self.upload(store, self.bytes(10, 1)) },
                { _ = try self.upload(store, self.bytes(200_000, 1)) },
                { _ = try store.status(of: "a") },
                { _ = try store.read("a", range: 0..<2) },
                { _ = try store.read("a", range: 0..<100) },
                { _ = try store.readPrefix("a", limit: 10) },
                { _ = try store.readAll("a", limit: 10_000) },
                { try store.makeDurable("a") },
                { _ = try store.list(below: nil, after: nil, limit: 1) },
                { _ = try store.listDirectories(below: nil, after: nil, limit: 1) },
                { _ = try store.removeAbandonedWrites(before: Timestamp(microseconds: 0)) },
                { try store.confirmConditionalPut(random: SeededRandom(seed: 1)) },
            ]
            for (number, call) in calls.enumerated() {
                let error = #expect(throws: KedgeError.self, "\(impostor.name), call \(number)") { try call() }
                #expect(error?.code == .repositoryUnavailable, "\(impostor.name), call \(number)")
            }
            // Whoever removes what he can't see believes no page either.
            guard impostor.body.contains("<html>") else { continue }
            #expect(error { () throws(KedgeError) in _ = try store.remove(["a"]) }?.code == .repositoryUnavailable)
        }
    }

    @Test("a store that sends a byte now and then is given up, in the head of an answer and in its body")
    func trickle() throws {
        let replies = Monitor([(first: [UInt8], others: [UInt8])]())
        let paper = try PaperObjectStore { _, _ in
            let reply = replies.update { $0.removeFirst() }
            return .trickle(first: reply.first, others: reply.others, pauseNanoseconds: 100_000_000)
        }
        var settings = try paper.settings()
        settings.patience = .init(connectSeconds: 2, stallSeconds: 1)
        let store = S3Store(settings, conditionalPut: true)
        let lines = [
            "HTTP/1.1 206 OK", "ETag: \"tag\"", "Content-Range: bytes 0-99/100", "Content-Length: 100", "", "",
        ]
        let (head, body) = (Array(lines.joined(separator: "\r\n").utf8), bytes(100, 1))
        replies.update { $0 = [(head, body), ([], head + body)] }
        for _ in 0..<2 {
            #expect(error { () throws(KedgeError) in _ = try store.read("a", range: 0..<100) }?.code == .timeout)
        }
    }

    // MARK: Answers that lie

    @Test("an error in a good answer to Complete is one, whatever its status (lesson 18)")
    func errorInGoodAnswer() throws {
        let paper = try PaperObjectStore { request, number in
            request.method == "POST" && request.target.contains("uploadId=")
                ? .answer(
                    200, headers: [("x-amz-request-id", "REQ-9")],
                    body: Array(
                        """
                        <?xml version="1.0" encoding="UTF-8"?>

                        <Error><Code>InternalError</Code><Message>we failed</Message></Error>
                        """.utf8))
                : nil
        }
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        let failure = error { () throws(KedgeError) in _ = try upload(store, bytes(200_000, 1)) }
        #expect(failure?.code == .repositoryUnavailable)
        #expect(failure?.detail?.contains("InternalError") == true && failure?.detail?.contains("REQ-9") == true)
        #expect(paper.objects.isEmpty && paper.unfinishedUploads == 0)
    }

    @Test("ranges that are ignored, cut or shifted are errors, never other bytes")
    func ranges() throws {
        let reply = Monitor(LocalHTTPServer.Reply?.none)
        let paper = try PaperObjectStore { request, _ in request.method == "GET" ? reply.update { $0 } : nil }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        paper.plant("a", bytes(1000, 1))
        #expect(try store.read("a", range: 10..<20) == Array(bytes(1000, 1)[10..<20]))
        let wrong: [LocalHTTPServer.Reply] = [
            .answer(200, body: bytes(1000, 1)), .answer(200, body: bytes(10, 1)),
            .answer(206, headers: [("Content-Range", "bytes 11-20/1000")], body: bytes(10, 1)),
            .answer(206, headers: [("Content-Range", "bytes 10-18/1000")], body: bytes(9, 1)),
            .answer(206, body: bytes(10, 1)),
            .bytes(Array("HTTP/1.1 206 OK\r\nContent-Range: bytes 10-19/1000\r\nContent-Length: 10\r\n\r\nabc".utf8)),
        ]
        for answer in wrong {
            reply.update { $0 = answer }
            #expect(error { () throws(KedgeError) in _ = try store.read("a", range: 10..<20) } != nil, "\(answer)")
        }
    }

    @Test("an answer that was cut on its way is tried again; only the object's own size makes it too short")
    func cutAnswers() throws {
        let answers = Monitor([LocalHTTPServer.Reply]())
        let paper = try PaperObjectStore { request, _ in
            request.method == "GET" ? answers.update { $0.popLast() } : nil
        }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        paper.plant("a", bytes(1000, 1))
        let cut: [LocalHTTPServer.Reply] = [
            .answer(206, headers: [("Content-Range", "bytes 0-999/1000")], body: bytes(7, 1)),
            .answer(206, headers: [("Content-Range", "bytes 0-6/1000")], body: bytes(7, 1)),
            .answer(200, body: []), .bytes(Array("HTTP/1.1 200 OK\r\nx-amz-".utf8)),
        ]
        let range: Range<UInt64> = 0..<1000
        for answer in cut {
            answers.update { $0 = [answer] }
            let found = error { () throws(KedgeError) in _ = try store.read("a", range: range) }
            #expect(found?.code == .repositoryUnavailable, "\(answer): \(String(describing: found))")
            answers.update { $0 = [answer] }
            #expect(try retrying(store).read("a", range: range) == bytes(1000, 1), "\(answer)")
        }
        for range in [UInt64(990)..<1001, 1000..<1010, 2000..<2001] {
            #expect(error { () throws(KedgeError) in _ = try store.read("a", range: range) }?.code == .damaged)
        }
    }

    @Test("an absent object is only what the store calls NoSuchKey; every error names its request")
    func errors() throws {
        let reply = Monitor(LocalHTTPServer.Reply?.none)
        let paper = try PaperObjectStore { _, _ in reply.update { $0 } }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        #expect(try store.status(of: "a") == nil)
        for (status, code) in [(404, "NoSuchBucket"), (403, "AccessDenied"), (500, "InternalError"), (400, "Odd")] {
            reply.update { $0 = error(code, status) }
            let failures = [
                error { () throws(KedgeError) in _ = try store.status(of: "a") },
                error { () throws(KedgeError) in _ = try store.readPrefix("a", limit: 10) },
                error { () throws(KedgeError) in _ = try store.put("a", ObjectBody([1]), .createOnly) },
                error { () throws(KedgeError) in _ = try store.list(below: nil, after: nil, limit: 1) },
                error { () throws(KedgeError) in
                    if let refused = try store.remove(["a"]).first { throw refused.error }
                },
                error { () throws(KedgeError) in _ = try store.removeAbandonedWrites(before: Timestamp(microseconds: 0))
                },
                error { () throws(KedgeError) in _ = try upload(store, bytes(9 << 20, 1), piece: 1 << 20) },
            ]
            for (number, failure) in failures.enumerated() {
                #expect(failure?.detail?.contains("REQ") == true, "\(code), \(number): \(failure?.description ?? "")")
            }
        }
    }

    @Test("without TLS what is removed is named in what is signed, never in a body that a store may not check")
    func removal() throws {
        for removesInBatches in [nil, true] as [Bool?] {
            let paper = try PaperObjectStore()
            let store = S3Store(
                try paper.settings(prefix: "p"), conditionalPut: true, removesInBatches: removesInBatches)
            let names = (0..<1100).compactMap { ObjectName("d/\($0)") }
            for name in names { paper.plant("p/\(name)", [1]) }
            paper.plant("p/e", [1])
            #expect(try store.remove(names + ["absent"]).isEmpty)
            #expect(paper.objects.keys.sorted() == ["p/e"])
            let batches = paper.requests.filter { $0.hasPrefix("POST") }.count
            #expect(batches == (removesInBatches == true ? 2 : 0))
        }
    }

    @Test("a body is not sent again behind our back when a kept connection breaks: what came of it is looked up")
    func silentRepetition() throws {
        let store = Monitor(PaperObjectStore?.none)
        // The first request leaves its connection open; the second is done, and its answer lost.
        let paper = try PaperObjectStore { request, number in
            guard number == 2 else { return nil }
            store.update { $0 }?.plant("a", request.body)
            return .bytes([], reset: true)
        }
        store.update { $0 = paper }
        defer { store.update { $0 = nil } }
        let direct = S3Store(try paper.settings(), conditionalPut: true)
        #expect(try direct.status(of: "a") == nil)
        #expect(
            error { () throws(KedgeError) in _ = try direct.put("a", ObjectBody(bytes(9000, 1)), .createOnly) }?.code
                == .repositoryUnavailable)
        #expect(paper.requests.count == 2)
        #expect(try direct.put("a", ObjectBody(bytes(9000, 1)), .createOnly) == .alreadyExists)
    }

    @Test("a removal that finds nobody there is an error, and one that concerns the bucket as well")
    func removalFailures() throws {
        let paper = try PaperObjectStore { request, _ in
            request.path.hasSuffix("/busy")
                ? self.error("SlowDown", 503) : request.path.hasSuffix("/lost") ? self.error("NoSuchBucket", 404) : nil
        }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        for name in ["busy", "lost", "a"] { paper.plant(name, [1]) }
        let failures = try store.remove(["a", "busy"])
        #expect(failures.map(\.name) == ["busy"] && failures.map(\.error.code) == [.repositoryUnavailable])
        #expect(paper.objects["a"] == nil && paper.objects["busy"] != nil)
        #expect(error { () throws(KedgeError) in _ = try store.remove(["lost"]) }?.code == .configuration)
    }

    @Test("a listing that never ends is an error, and one that shows more than was asked for is cut (lesson 19)")
    func listings() throws {
        let paper = try PaperObjectStore()
        for number in 0..<5 { paper.plant("strange//\(number)", [1]) }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        #expect(try store.list(below: nil, after: nil, limit: 3).entries.isEmpty)
        paper.habits.repeatsListings = true
        #expect(error { () throws(KedgeError) in _ = try store.list(below: nil, after: nil, limit: 3) } != nil)
        for number in 0..<5 { paper.plant("d/\(number)", [1]) }
        for size in [1, 2, 3, 1000] {
            var count = 0
            let failure = error { () throws(KedgeError) in
                try store.visitObjects(below: "d", pageSize: size) { _ in
                    count += 1
                    return count < 100
                }
            }
            #expect(failure?.code == .repositoryUnavailable && count <= 5, "\(size): \(count)")
        }
    }

    @Test("a listing of many objects is one request for each thousand")
    func listRequests() throws {
        let paper = try PaperObjectStore()
        for number in 0..<3500 { paper.plant("d/\(number)", [1]) }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        var count = 0
        try store.forEachObject(below: "d") { _ in count += 1 }
        #expect(count == 3500)
        #expect(paper.requests.count == 4)
    }
}
