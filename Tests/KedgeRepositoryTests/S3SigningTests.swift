// Signatures against the examples that Amazon publishes (S3 API reference, "Authenticating Requests: Using the
// Authorization Header", section "Examples: Signature Calculations").
import KedgeCodec
import KedgeCore
import KedgeRepository
import Testing

@Suite struct S3SigningTests {
    private static let credentials = S3Credentials(
        accessKeyID: "AKIAIOSFODNN7EXAMPLE",
        secretAccessKey: Secret(Array("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".utf8)))
    private static let emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    private static let host = "examplebucket.s3.amazonaws.com"

    private func signature(_ request: S3SignedRequest) throws -> String {
        let moment = try #require(Timestamp(record: "2013-05-24T00:00:00Z"))
        let text = try request.authorization(by: Self.credentials, region: "us-east-1", at: moment)
        #expect(text.hasPrefix("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"))
        return try #require(text.split(separator: "Signature=").last.map { String($0) })
    }

    @Test("GET of a range")
    func getObject() throws {
        let request = S3SignedRequest(
            method: "GET", path: "/test.txt", query: [],
            headers: [
                ("Host", Self.host), ("Range", "bytes=0-9"), ("x-amz-content-sha256", Self.emptyHash),
                ("x-amz-date", "20130524T000000Z"),
            ], payloadHash: Self.emptyHash)
        #expect(try signature(request) == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    }

    @Test("PUT of an object whose name has to be escaped")
    func putObject() throws {
        let hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
        #expect(
            try RequestHashing.sha256([Array("Welcome to Amazon S3.".utf8)]).map { String($0, radix: 16) }.count == 32)
        let request = S3SignedRequest(
            method: "PUT", path: "/test%24file.text", query: [],
            headers: [
                ("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("Host", Self.host),
                ("x-amz-content-sha256", hash), ("x-amz-date", "20130524T000000Z"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ], payloadHash: hash)
        #expect(try signature(request) == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")
    }

    @Test("a query with a name and no value")
    func getLifecycle() throws {
        let request = S3SignedRequest(
            method: "GET", path: "/", query: [("lifecycle", "")],
            headers: [
                ("Host", Self.host), ("x-amz-content-sha256", Self.emptyHash), ("x-amz-date", "20130524T000000Z"),
            ], payloadHash: Self.emptyHash)
        #expect(try signature(request) == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")
    }

    @Test("a query that has to be sorted")
    func listObjects() throws {
        let request = S3SignedRequest(
            method: "GET", path: "/", query: [("prefix", "J"), ("max-keys", "2")],
            headers: [
                ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", Self.emptyHash), ("Host", Self.host),
            ], payloadHash: Self.emptyHash)
        #expect(request.queryText == "max-keys=2&prefix=J")
        #expect(try signature(request) == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
    }
}
