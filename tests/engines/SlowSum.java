import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** Adds 1 to N up in ten groups, slowly, and keeps each group's sum in a file of its own: to be killed. */
public class SlowSum {
  public static void main(String[] arguments) throws Exception {
    long n = Long.parseLong(arguments[0]);
    long milliseconds = Long.parseLong(arguments[1]);
    String folder = arguments[2];
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
    environment
        .fromSequence(1, n)
        .map(
            i -> {
              Thread.sleep(milliseconds);
              return Tuple2.of(i % 10, i);
            })
        .returns(Types.TUPLE(Types.LONG, Types.LONG))
        .keyBy(pair -> pair.f0, Types.LONG)
        .reduce((a, b) -> Tuple2.of(a.f0, a.f1 + b.f1)) // its state is where config.yaml says
        .map(
            sum -> {
              Files.writeString(Path.of(folder, sum.f0.toString()), sum.f1.toString());
              return sum.f1;
            })
        .returns(Types.LONG)
        .filter(sum -> false)
        .print();
    environment.execute("slow sum");
  }
}
