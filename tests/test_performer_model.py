"""The layer and the model: padding, masks, saving, and what a published BERT keeps."""

import json

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.layers import MultiHeadAttention
from bert4keras.models import build_transformer_model
from harness import assert_close, check_layer

from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import bert_folder, save_bert
from bert_theseus.errors import InputError
from bert_theseus.performer import (PerformerAttention, RedrawProjection,
                                    build_performer_model, check_token_ids)

CONFIG = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
              intermediate_size=32, hidden_act="gelu", max_position_embeddings=96,
              hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
X = np.random.default_rng(0).normal(size=(2, 12, 16)).astype("float32")
IDS = np.random.default_rng(1).integers(1, 50, size=(3, 20))
ZEROS = np.zeros_like(IDS)


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def _layer(**options):
    return PerformerAttention(heads=2, head_size=8, num_features=16, **options)


@pytest.mark.parametrize("options", [
    dict(kernel="favor"), dict(kernel="trigonometric", causal=True, projection_seed=7),
    dict(kernel="relu", projection="independent"), dict(kernel="elu", causal=True),
    dict(kernel="one_plus_cos"), dict(kernel="double_softmax"),
    dict(attention="auto", crossover=8, projection="equal_probability")], ids=str)
def test_the_layer_passes_the_harness(options):
    check_layer(lambda: _layer(**options), [X, X, X])


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"attention": "auto"}], ids=str)
def test_the_layer_ignores_padded_keys(options):
    layer = _layer(**options)
    expected = layer([X] * 3)
    padded = np.concatenate([X, 9 * X[:, :5]], axis=1)
    mask = tf.sequence_mask([12, 12], 17)
    assert_close(layer([padded] * 3, mask=[mask] * 3)[:, :12], expected)


def test_the_projection_is_saved_fixed_and_outside_training():
    set_seed(0)
    layer = _layer(projection_seed=5)
    first, second = layer([X] * 3), layer([X] * 3)
    np.testing.assert_array_equal(first, second)
    assert [w.name.split("/")[-1] for w in layer.non_trainable_weights] == ["projection:0"]
    np.testing.assert_allclose(layer.projection, layer.draw(5), rtol=1e-6)
    twin = PerformerAttention.from_config(layer.get_config())
    twin([X] * 3)
    np.testing.assert_array_equal(twin.projection, layer.projection)


def test_auto_is_exact_below_the_crossover_and_linear_from_there_on():
    auto, linear = _layer(attention="auto", crossover=12), _layer()
    exact = MultiHeadAttention(heads=2, head_size=8)
    for layer in (auto, linear, exact):
        layer([X] * 3)
    linear.set_weights(auto.get_weights())
    exact.set_weights(auto.get_weights()[:-1])
    run = tf.function(lambda x: auto([x, x, x]), input_signature=[tf.TensorSpec([2, None, 16])])
    mask = [tf.sequence_mask([8, 11], 11)] * 3
    assert_close(auto([X[:, :11]] * 3, mask=mask), exact([X[:, :11]] * 3, mask=mask))
    assert_close(run(X[:, :11]), exact([X[:, :11]] * 3))
    assert_close(run(X), linear([X] * 3))
    assert np.abs(linear([X] * 3) - exact([X] * 3)).max() > 1e-3


def test_attention_dropout_drops_whole_keys_in_training_only():
    layer = _layer(attention_dropout=0.5)
    expected = layer([X] * 3, training=False)
    np.testing.assert_array_equal(expected, layer([X] * 3, training=False))
    outputs = np.stack([layer([X] * 3, training=True) for _ in range(200)])
    assert outputs.std(0).min() > 0
    np.testing.assert_allclose(outputs.mean(0), expected, atol=6 * outputs.std(0).max() / 14)


def test_mixed_precision_keeps_the_projection_whole():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = _layer()
        output = layer([X] * 3)
        assert output.dtype == tf.bfloat16 and layer.projection.dtype == tf.float32
        weights = layer.get_weights()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    exact = _layer()
    exact([X] * 3)
    exact.set_weights(weights)
    assert_close(tf.cast(output, tf.float32), exact([X] * 3), 0.05)


@pytest.mark.parametrize("options, message", [
    (dict(num_features=0), "num_features is 0"), (dict(heads=0), "heads is 0"),
    (dict(kernel="gauss"), "unknown kernel"), (dict(projection="qr"), "unknown projection"),
    (dict(return_attention_scores=True), "no attention scores"),
    (dict(normalization="squared_relu"), "unknown normalization"),
    (dict(kernel="elu", attention="auto"), "two different models")], ids=str)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(InputError, match=message):
        PerformerAttention(**{"heads": 2, "head_size": 8, **options})


def test_masks_and_biases_a_linear_layer_cannot_take_are_one_line():
    segments, matrix = tf.zeros([2, 12]), tf.ones([2, 12, 12])
    with pytest.raises(InputError, match="causal layer was given another"):
        _layer(causal=True)([X, X, X, segments], a_bias=True)
    with pytest.raises(InputError, match="rank 3"):
        _layer()([X, X, X, matrix], a_bias=True)
    with pytest.raises(InputError, match="'typical_relative' is added to the attention matrix"):
        _layer()([X, X, X, matrix], p_bias="typical_relative")
    symbolic = [keras.Input(x.shape[1:]) for x in (X, X, X, segments)]
    for inputs in (symbolic, [X, X, X, segments]):      # in a model, and by itself
        with pytest.raises(InputError) as error:
            _layer(causal=True, name="attention")(inputs, a_bias=True)
        assert str(error.value) == ("a causal layer was given another attention mask, attention, "
                                    "build it with causal=False, or leave a_bias out")


def _weights(model):
    return {w.name: w.numpy() for w in model.weights}


def test_the_exchange_keeps_names_and_weights(config_path):
    bert = build_transformer_model(config_path)
    performer = build_performer_model(config_path, num_features=32)
    assert [x.name for x in bert.layers] == [x.name for x in performer.layers]
    assert [w.name for w in bert.trainable_weights] == [w.name for w in performer.trainable_weights]
    extra = {name: w.shape for name, w in _weights(performer).items() if name not in _weights(bert)}
    assert sorted(extra.values()) == [(32, 8), (32, 8)] and all("projection" in n for n in extra)


def _copy(source, target):
    for old, new in zip(source.trainable_weights, target.trainable_weights):
        new.assign(old)


def _sharpen(model):
    """Makes attention far from uniform, so that ω matter."""
    for weight in model.trainable_weights:
        if "MultiHeadSelfAttention" in weight.name and "kernel" in weight.name:
            weight.assign(weight * 8)


@pytest.mark.parametrize("model, application", [
    ("bert", "encoder"), ("bert", "lm"), ("bert", "unilm"), ("roformer", "encoder"),
    ("roformer", "unilm")])
def test_with_many_features_it_approaches_the_exact_model(config_path, model, application):
    set_seed(0)
    one = dict(model=model, application=application, num_hidden_layers=1)
    exact = build_transformer_model(config_path, **one)
    _sharpen(exact)
    segments = (np.arange(20) >= 8) * np.ones_like(IDS)
    inputs, errors = [tf.constant(IDS, tf.float32), tf.constant(segments, tf.float32)], []
    for m in (16, 2048):
        linear = build_performer_model(config_path, num_features=m, rotary_at="inputs", **one)
        _copy(exact, linear)
        errors.append(np.abs(linear(inputs) - exact(inputs)).mean())
    assert errors[1] < 0.35 * errors[0], errors


def test_a_chosen_subset_of_layers_is_exchanged(config_path):
    model = build_performer_model(config_path, performer_layers=[1], application="lm")
    kinds = [type(model.get_layer(f"Transformer-{i}-MultiHeadSelfAttention")) for i in (0, 1)]
    assert kinds == [MultiHeadAttention, PerformerAttention]
    assert model.get_layer("Transformer-1-MultiHeadSelfAttention").causal
    assert "Attention-LM-Mask" in [layer.name for layer in model.layers]
    everything = build_performer_model(config_path, application="lm")
    assert "Attention-LM-Mask" not in [layer.name for layer in everything.layers]


def test_causal_without_a_head_hides_later_tokens(config_path):
    model = build_performer_model(config_path, causal=True)
    changed = np.concatenate([IDS[:, :10], IDS[:, :10]], axis=1)
    before, after = (model([x, ZEROS]).numpy() for x in (IDS, changed))
    assert before.shape == (3, 20, 16)
    assert_close(after[:, :10], before[:, :10])
    assert np.abs(after[:, 10:] - before[:, 10:]).max() > 1e-3


def test_padding_a_batch_changes_no_prediction(config_path):
    model = build_performer_model(config_path, with_pool=True)
    padded = np.pad(IDS, [(0, 0), (0, 31)])
    assert_close(model([padded, np.zeros_like(padded)]), model([IDS, ZEROS]))


def test_a_saved_model_and_its_weights_come_back_whole(config_path):
    first = build_performer_model(config_path, projection_seed=3)
    first.save_weights("performer.weights.h5")
    second = build_performer_model(config_path, projection_seed=4)
    second.load_weights("performer.weights.h5")
    assert_close(second([IDS, ZEROS]), first([IDS, ZEROS]))
    whole = build_performer_model(config_path, hidden_act="relu", kernel="relu")
    whole.save("performer.h5")
    assert_close(keras.models.load_model("performer.h5")([IDS, ZEROS]), whole([IDS, ZEROS]))


def test_a_published_folder_keeps_redrawn_projections_and_is_still_a_plain_bert(config_path):
    bert = build_performer_model(config_path, num_features=24, return_keras_model=False)
    _sharpen(bert.model)
    for layer in (l for l in bert.layers.values() if isinstance(l, PerformerAttention)):
        layer.projection.assign(layer.draw(99))
    tokens = [f"t{i}" for i in range(50)]
    paths = bert_folder(save_bert(bert, "saved", tokens))
    twin = build_performer_model(paths.config_path, paths.checkpoint_path)
    assert_close(twin([IDS, ZEROS]), bert.model([IDS, ZEROS]), 1e-6)
    drawn = build_performer_model(paths.config_path, paths.checkpoint_path, projection_seed=0)
    assert np.abs(drawn([IDS, ZEROS]) - bert.model([IDS, ZEROS])).max() > 1e-3
    plain = build_transformer_model(paths.config_path, paths.checkpoint_path)
    for ours, theirs in zip(twin.trainable_weights, plain.trainable_weights):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match=r"expects \[32, 8\], the checkpoint holds \[24, 8\]"):
        build_performer_model(paths.config_path, paths.checkpoint_path, num_features=32)
    elu = build_performer_model(paths.config_path, paths.checkpoint_path, kernel="elu")
    assert len(elu.weights) == len(plain.weights)


def test_redraw_follows_steps_and_repeats_itself():
    def train(steps, every, weights=None):
        x_in = keras.Input((None, 16))
        model = keras.Model(x_in, _layer(name="attention")([x_in] * 3))
        model.compile("sgd", "mse")
        start = model.get_layer("attention").projection.numpy()
        data = tf.data.Dataset.from_tensors((X, X)).repeat(steps)
        model.fit(data, epochs=1, verbose=0, callbacks=[RedrawProjection(every, seed=1)])
        return start, model.get_layer("attention").projection.numpy()
    start, early = train(2, every=3)
    np.testing.assert_array_equal(start, early)
    drawn = train(3, every=3)[1]
    assert np.abs(drawn - start).max() > 0.1
    np.testing.assert_array_equal(drawn, train(4, every=3)[1])
    with pytest.raises(InputError, match="every is 0"):
        RedrawProjection(every=0)


@pytest.mark.parametrize("options, message", [
    (dict(model="nezha"), "adds its relative positions to the attention matrix"),
    (dict(model="gpt9"), "unknown model"), (dict(performer_layers=[2]), "there is no block 2"),
    (dict(num_attention_heads=3), "3 heads do not divide the hidden size 16"),
    (dict(num_features=0), "num_features is 0"),
    (dict(causal=True, application="unilm"), "contradicts"),
    (dict(model="roformer", attention="auto"), "use rotary_at='inputs'"),
    (dict(residual_attention_scores=True), "residual attention scores")], ids=str)
def test_bad_models_are_one_line(config_path, options, message):
    with pytest.raises(InputError, match=message):
        build_performer_model(config_path, **options)


def test_a_missing_or_broken_configuration_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot read the configuration"):
        build_performer_model(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("text")
    with pytest.raises(InputError, match="is no JSON"):
        build_performer_model(tmp_path / "text.json")


@pytest.mark.parametrize("ids", [[[3, 50]], [[3, -1]], [[3, 2.5]], [[3, float("nan")]]])
def test_ids_beyond_the_vocabulary_are_one_line(ids):
    check_token_ids([[0, 49.0]], 50)
    with pytest.raises(InputError, match=r"at \(0, 1\) is none of 0 … 49"):
        check_token_ids(ids, 50)
