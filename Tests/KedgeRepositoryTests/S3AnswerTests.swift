// What answers of object stores mean, and how places and names become URLs. No real store is needed.
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeRepository

@Suite struct S3AnswerTests {
    // MARK: Failures

    /// What becomes of an answer: status, the store's word, our code.
    private static let meanings: [(status: Int, code: String?, expected: ErrorCode)] = [
        (403, "AccessDenied", .permission), (403, "InvalidAccessKeyId", .permission),
        (403, "SignatureDoesNotMatch", .permission), (401, nil, .permission),
        (404, "NoSuchBucket", .configuration), (404, nil, .repositoryUnavailable),
        (408, nil, .repositoryUnavailable), (429, "SlowDown", .repositoryUnavailable),
        (400, "RequestTimeout", .repositoryUnavailable), (400, "BadDigest", .repositoryUnavailable),
        (400, "ExpiredToken", .repositoryUnavailable), (409, "ConditionalRequestConflict", .repositoryUnavailable),
        (409, "OperationAborted", .repositoryUnavailable), (403, "RequestTimeTooSkewed", .repositoryUnavailable),
        (500, "InternalError", .repositoryUnavailable), (502, nil, .repositoryUnavailable),
        (503, "ServiceUnavailable", .repositoryUnavailable), (504, nil, .repositoryUnavailable),
        (507, nil, .noSpace), (403, "QuotaExceeded", .noSpace), (400, "InvalidStorageClass", .configuration),
        (301, "PermanentRedirect", .configuration), (400, "InvalidArgument", .inputOutput),
    ]

    @Test("each answer has the error that says what to do, and only what may pass is tried again (lesson 21)")
    func meanings() {
        for (status, code, expected) in Self.meanings {
            let failure = S3Failure(status: status, code: code, message: "why", requestID: "R1")
            let error = failure.error("could not do it", location: "s3://b")
            #expect(error.code == expected, "\(status) \(code ?? "-")")
            #expect(error.detail?.contains("\(status)") == true && error.detail?.contains("R1") == true)
            #expect(error.hint?.isEmpty == false)
            let isLater = expected == .repositoryUnavailable && status != 404
            #expect(error.code.isRetryable == isLater || status == 404)
        }
    }

    @Test("absent is only what the store itself calls NoSuchKey")
    func absence() {
        #expect(S3Failure(status: 404, code: "NoSuchKey").isAbsentObject)
        for code in [nil, "NoSuchBucket", "NoSuchUpload", "NotFound"] {
            #expect(!S3Failure(status: 404, code: code).isAbsentObject)
        }
        #expect(!S3Failure(status: 403, code: "NoSuchKey").isAbsentObject)
    }

    // MARK: Headers

    @Test("Content-Range is read exactly")
    func contentRange() {
        let range = ContentRange("bytes 5-9/10")
        #expect(range?.first == 5 && range?.last == 9 && range?.objectBytes == 10)
        for text in ["", "bytes */10", "bytes 5-4/10", "bytes 0-10/10", "lines 0-1/2", "bytes 0-1/*", "bytes -1-1/2"] {
            #expect(ContentRange(text) == nil, "\(text)")
        }
    }

    @Test("dates of headers are read, with every hour of the day (lesson 21)")
    func dates() {
        #expect(HTTPDate.parse("Fri, 24 May 2013 00:00:00 GMT") == Timestamp(record: "2013-05-24T00:00:00Z"))
        for hour in 0..<24 {
            let text = hour < 10 ? "0\(hour)" : "\(hour)"
            let expected = Timestamp(record: "2026-02-28T\(text):09:59Z")
            #expect(HTTPDate.parse("Sat, 28 Feb 2026 \(text):09:59 GMT") == expected)
            #expect(expected.map { S3SignedRequest.timeText($0) } == "20260228T\(text)0959Z")
        }
        for text in ["", "24 May 2013", "Fri, 24 Foo 2013 00:00:00 GMT", "Fri, 24 May 2013 25:00:00 GMT"] {
            #expect(HTTPDate.parse(text) == nil)
        }
    }

    // MARK: Places

    private func location(
        _ endpoint: String, bucket: String = "bucket", prefix: String = "", style: S3Location.URIStyle = .path
    ) throws(KedgeError) -> S3Location {
        try S3Location(endpoint: endpoint, region: "eu-west-1", bucket: bucket, prefix: prefix, uriStyle: style)
    }

    @Test("places become hosts and paths")
    func places() throws {
        let path = try location("https://s3.eu-west-1.amazonaws.com", prefix: "a/b")
        #expect(path.host == "s3.eu-west-1.amazonaws.com")
        #expect(path.path(of: path.key(of: "c/d")) == "/bucket/a/b/c/d")
        #expect(path.path(of: nil) == "/bucket")
        #expect(path.directoryKey(nil) == "a/b/" && path.directoryKey("c") == "a/b/c/")
        #expect(path.name(of: "a/b/c/d") == "c/d" && path.name(of: "a/bc") == nil && path.name(of: "x") == nil)
        let host = try location("http://[::1]:9000/", style: .host)
        #expect(host.host == "bucket.[::1]:9000" && host.path(of: "k y") == "/k%20y" && host.path(of: nil) == "/")
        #expect(path.moved(to: "us-east-2")?.host == "s3.us-east-2.amazonaws.com")
        // What answers may be hostile: a region becomes part of the host's name.
        for region in ["", "x.evil.example/", "a@evil.example", "a b", "a%2F", String(repeating: "a", count: 64)] {
            #expect(path.moved(to: region) == nil, "\(region)")
        }
        #expect("\(path)" == "s3://bucket/a/b at https://s3.eu-west-1.amazonaws.com")
    }

    @Test("what is no place is refused")
    func refusedPlaces() {
        for endpoint in ["", "s3.example.com", "ftp://x", "https://", "https://a/b", "https://u:p@h", "https://a b"] {
            #expect(throws: KedgeError.self, "\(endpoint)") { try location(endpoint) }
        }
        for bucket in ["", "ab", "a/b", "a b", String(repeating: "b", count: 64)] {
            #expect(throws: KedgeError.self, "\(bucket)") { try location("https://h", bucket: bucket) }
        }
        for prefix in ["/a", "a/", "a//b", "..", "a b"] {
            #expect(throws: KedgeError.self, "\(prefix)") { try location("https://h", prefix: prefix) }
        }
    }

    @Test("escaping keeps what signatures keep, and can be undone (lesson 21)")
    func escaping() {
        let all = String(decoding: (1...126).map { UInt8($0) }, as: UTF8.self) + "äπ"
        #expect(S3Escaping.unescaped(S3Escaping.text(all)) == all)
        #expect(S3Escaping.text("a-b._~/ +=%") == "a-b._~%2F%20%2B%3D%25")
        #expect(S3Escaping.path("a/b c") == "a/b%20c")
        for text in ["%", "%2", "%zz", "%ff"] { #expect(S3Escaping.unescaped(text) == nil) }
        #expect([0xF8, 0, 255].map { UInt8($0) }.base64Text == "+AD/")
        #expect(Array("a".utf8).base64Text == "YQ==" && Array("ab".utf8).base64Text == "YWI=")
        #expect([UInt8]().base64Text == "" && [UInt8(0x0A), 0xFF].hexText == "0aff")
    }

    // MARK: Stores with habits of their own

    @Test("an answer without a body, and XML, may call itself a web page: some stores' do")
    func pagesOfStores() throws {
        let paper = try PaperObjectStore { _, _ in nil }
        paper.habits.contentType = "text/html; charset=UTF-8"
        let store = S3Store(try paper.settings(), conditionalPut: true, partBytes: 64 << 10)
        #expect(try store.put("a", ObjectBody([1]), .createOnly) == .created)
        #expect(try store.list(below: nil, after: nil, limit: 10).entries.map(\.name) == ["a"])
        #expect(try store.remove(["a"]).isEmpty)
        #expect(try !store.contains("a"))
    }

    @Test("a try of conditional puts that fails in the middle leaves nothing in the bucket")
    func failedProbe() throws {
        let paper = try PaperObjectStore { _, number in number == 2 ? .answer(200) : nil }
        let store = S3Store(try paper.settings(), conditionalPut: true)
        #expect(throws: KedgeError.self) { try store.confirmConditionalPut(random: SystemRandomSource()) }
        #expect(paper.requests.count > 2 && paper.objects.isEmpty)
    }

    @Test("whatever asks to stop ends a transfer that is under way, a signal or a reason of our own")
    func stopped() throws {
        for reason in [nil, KedgeError(.databaseUnavailable, "the session is gone")] {
            let interruption = Interruption(within: Interruption())
            let paper = try PaperObjectStore { _, _ in
                if let reason { interruption.stop(because: reason) } else { interruption.request(signal: 15) }
                return .silence
            }
            let store = S3Store(try paper.settings(interruption: interruption), conditionalPut: true)
            let error = #expect(throws: KedgeError.self) { try store.status(of: "a") }
            #expect(error?.code == reason?.code ?? .interrupted)
        }
    }
}
